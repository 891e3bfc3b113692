# Set-up: import dlnotes, and install it first where it is missing (Colab).
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("dlnotes") is None:
    source = "dlnotes @ git+https://github.com/dlnotes/dlnotes"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

import matplotlib.pyplot as plt
import numpy as np

import dlnotes
from dlnotes import check, data, metrics, nn, optim, train, viz

viz.use_style()
dlnotes.manual_seed(0)
