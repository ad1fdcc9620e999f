"""For every test, also those of the plugins."""

import os

import torch

torch.set_num_threads(1)  # toy tensors: threads cost more than they give
os.environ["SSLROB_HOME"] = os.devnull  # no zoo entries of whoever runs the tests; a test that makes some has a home of its own
os.environ.pop("COLUMNS", None)  # tables as wide as they are, wherever the tests run
