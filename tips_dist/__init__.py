"""tips-dist: stability studies of adversarial 2D-to-3D pose lifters (TIPS-GAN), judged without ground truth."""

__version__ = "0.1.0"
