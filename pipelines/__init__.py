"""The pipelines of curate; imported as `curate.pipelines`."""

if __name__ != "curate.pipelines":
    raise ImportError("import curate.pipelines, not pipelines: the folder is packed inside the package curate")
