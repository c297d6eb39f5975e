"""The scorers of curate; imported as `curate.scorers`."""

if __name__ != "curate.scorers":
    raise ImportError("import curate.scorers, not scorers: the folder is packed inside the package curate")
