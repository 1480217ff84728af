"""What each kernel is tried at: a module here for a module there.

`GATES` says what it must compile to (tools/compile_gate.py); `cases` gives the released
models' sizes and small ones, with peers and goals. As a program a module is its
kernel's demonstration:

    TRITON_INTERPRET=1 python -m deepseek_mini.kernels.cases.rmsnorm
"""
