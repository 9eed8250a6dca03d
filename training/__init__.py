"""Training of the bundled miniature from scratch: data, stages, evaluation, export. See training/README.md."""
