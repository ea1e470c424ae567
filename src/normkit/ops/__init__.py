"""The operators: schema, fake kernel, fallback and gradient; PyTorch's dispatcher picks the kernel."""
