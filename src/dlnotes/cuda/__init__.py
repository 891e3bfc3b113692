"""CUDA."""
from dlnotes.cuda._errors import CompileError, CudaError, KernelError, ToolError
from dlnotes.cuda._kernel import Kernel, Module, load
from dlnotes.cuda._trace import LineReport, Step, Steps, Trace
