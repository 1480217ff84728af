"""A course of one short lesson, for the tests of the builder."""

LESSON = '''\
# A lesson for tests.

# %% [markdown]
# # 03 Legs
#
# How many legs have three cats?

# %%
legs = 3 * 4
print("legs:", legs)

# %% tags=["nbval-ignore-output"]
import time
print(time.time())

# %%
import base64

import ipywidgets

dot = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAA"
    "AABJRU5ErkJggg=="
)
slider = ipywidgets.IntSlider(value=3, min=0, max=9, description="cats")
words = ipywidgets.HTML("3 cats")
picture = ipywidgets.Image(value=dot, format="png")


def move(change):
    words.value = f"{change['new']} cats"


slider.observe(move, names="value")
ipywidgets.VBox([slider, words, picture])

# %% tags=["raises-exception"]
1 / 0

# ===== exercises =====

# %% [markdown]
# # 03 Exercises

# %%
def check(name, function):
    try:
        verdict = "passed" if function(2) == 8 else "not yet - wrong"
    except NotImplementedError:
        verdict = "not attempted"
    print(f"{name}: {verdict}")

# %% [markdown]
# **03.1** (easy, 1 minute) Write `legs`.

# %%
def legs(cats):
    """The legs of so many cats."""
    ### BEGIN SOLUTION
    per_cat = 4
    return per_cat * cats
    ### END SOLUTION

# %%
check("03.1", legs)
'''

PYPROJECT = '''\
[tool.deepseek-mini]
repository = "someone/legs"
branch = "main"
ref = "v1"
'''


def make(root):
    """Write the course under `root`."""
    (root / "lessons").mkdir(parents=True)
    (root / "lessons" / "03_legs.py").write_text(LESSON, encoding="utf-8")
    (root / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    return root
