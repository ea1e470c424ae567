"""How near is near: every tolerance of the tests of functions, layers, operators and kernels, and why.

A *unit* is the distance between neighbouring numbers of a dtype at the size of a *scale*: the
largest value of the row (for BatchNorm, the channel) the result belongs to for an output, the largest
of the terms that are added and may cancel for a gradient.
"""

# float64 against PyTorch's float64: two orders of summation of at most 1e5 terms leave 1e-13; the
# rest is room for rows whose variance is small against their mean.
FLOAT64 = 1e-12

# float32, in units of the float32 scale.
# Output: x - mean, the residual, rstd (rounded once, used once), gain and bias: five roundings of half
# a unit each; rounding up to the scale's power of two doubles them at the worst.
OUTPUT = 4
# ... and PyTorch's own result may be nearer by this much, which is the order of its operations.
BEHIND_PYTORCH = 1
# Three terms of four roundings each, and the float32 sums of two means: chains of 64 additions in
# float32 go wrong by sqrt(64)/2 units of half their size; the two means are one such chain each.
GRAD_INPUT = 8
# Sums over rows: at most 64 terms are added in float32 before the sum goes on in float64, which by
# the random walk is off by sqrt(64)/2 units; each term carries three roundings more.
GRAD_PARAMETER = 8

# A result of a dtype narrower than what it is computed in (bfloat16 and float16; the gradient of a
# float32 weight with float64 data), in units of that dtype at the row's largest value, against the
# correctly rounded reference: rounded once at the end, it can only fall to the neighbour.
NARROW = 1

# The fallback sums in PyTorch's order, with longer float32 chains: twice the room.
FALLBACK = 2

# Running statistics: a sum like those of the gradients of parameters, then one multiplication and
# addition and one rounding to their own dtype; units of the coarser of the two dtypes.
RUNNING = 8

# Ten steps of SGD at rate 0.05 of a small float32 model: a rounding in step 1 grows with each step.
# Measured for PyTorch against itself with the sums in another order: 2e-6.
TRAINING = 2e-5

# A whole float32 model forward and backward: a few dozen roundings in a row, relative to the largest.
MODEL = 1e-5
# ... and in float64, where a second derivative of PyTorch's goes another way: its terms, and theirs,
# grow with each division by a variance.
MODEL_FLOAT64 = 1e-11
