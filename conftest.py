"""For every test, also those of the plugins."""

import torch

torch.set_num_threads(1)  # toy tensors: threads cost more than they give
