"""The embedded collection of sslrob: a small real-image data set, small pretrained backbones and their heads."""
