"""The bench on a GPU: recorded calls over rotating operands, and copies to hold them against."""
