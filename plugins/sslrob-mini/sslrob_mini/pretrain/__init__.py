"""How the backbones of the collection are pretrained: `python -m sslrob_mini.pretrain --help`."""
