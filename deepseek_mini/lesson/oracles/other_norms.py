"""Norms of x [B, R, D] that people write for RMSNorm, each with its hint (12.4)."""


def _square(x, dim=-1):
    return x.square().mean(dim, keepdim=True)


EPSILON = "the norm is not quite the one of the text: see what stands under the root"
OTHER_NORMS = (
    *(
        (
            lambda x, g, eps=eps: x * (_square(x) + eps).rsqrt() * g,
            EPSILON + ", which counts where x is small",
        )
        for eps in (0, 1e-12, 1e-8, 2**-23, 1e-5)
    ),
    (
        lambda x, g: x / (_square(x).sqrt() + 1e-6) * g,
        EPSILON + ", and what outside it",
    ),
    (
        lambda x, g: x * (_square(x) + 1e-6).rsqrt(),
        "the gains of the norms are missing",
    ),
    (
        lambda x, g: x * (_square(x, (0, 1, 2)) + 1e-6).rsqrt() * g,
        "the mean runs over all axes: every row has a norm of its own",
    ),
    (
        lambda x, g: x * (_square(x, (1, 2)) + 1e-6).rsqrt() * g,
        "the mean runs over a text's rows as well: every row has a norm of its own",
    ),
    *(
        (
            lambda x, g, shift=shift, n=n: (
                (x - shift * x.mean(-1, keepdim=True))
                / (x.var(-1, keepdim=True, correction=n) + 1e-6).sqrt()
                * g
            ),
            "the norm divides by a standard deviation: that measures from the mean of "
            "x, RMSNorm from 0",
        )
        for shift in (0, 1)
        for n in (0, 1)
    ),
    (
        lambda x, g: x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt() * g,
        "the norm divides by the length of x: RMS is the root of a mean, not of a sum",
    ),
)
