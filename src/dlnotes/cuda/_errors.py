"""What goes wrong with kernels: before they run, while they run, and for want of a tool."""


class CudaError(RuntimeError):
    """Any error of `dlnotes.cuda` that is not a wrong argument."""


class CompileError(CudaError):
    """The compiler refuses the source; the text holds its messages with file, line and caret."""


class ToolError(CudaError):
    """A compiler, a library or a GPU is missing; the text says what to install."""


class KernelError(CudaError):
    """A kernel did something wrong while it ran.

    Attributes: `kind` ("race", "out of bounds", "misaligned", "uninitialised", "divergent barrier",
    "divergent warp", "deadlock", "mbarrier", "wgmma": misused; "unfinished": what runs beside the
    threads and that nothing has waited for; or "error"), `kernel`, `file`, `line` (0 where
    unknown), and `block` and `thread`, each (x, y, z) or None.
    """

    KINDS = (
        "race",
        "out of bounds",
        "misaligned",
        "uninitialised",
        "divergent barrier",
        "divergent warp",
        "deadlock",
        "mbarrier",
        "wgmma",
        "unfinished",
    )

    def __init__(self, message, *, kernel, file="", line=0, source="", block=None, thread=None):
        self.kind = next((kind for kind in self.KINDS if message.startswith(kind)), "error")
        self.kernel, self.file, self.line = kernel, file, line
        self.block, self.thread = block, thread
        where = f"kernel {kernel}"
        if block is not None:
            where += f", block {block}"
        if thread is not None:
            where += f", thread {thread}"
        text = f"{message}\n  in {where}"
        if line:
            text += f"\n  {file}, line {line}"
        if source:
            text += f":\n    {source.strip()}"
        super().__init__(text)
