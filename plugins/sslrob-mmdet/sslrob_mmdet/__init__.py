"""Object detection for sslrob, through mmdet."""
