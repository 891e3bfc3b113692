"""What the loader has to know of a .cu file: its text, its kernels, its shared memory.

This is no C++ parser. It finds what stands in plain sight, `__global__ void name(parameters)` and
`__shared__ type name[size];`, with comments blanked so that nothing is found in them. Lines are
never moved, so every message names the line that the reader sees.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dlnotes.cuda._errors import CompileError

# C++ name → NumPy dtype. Everything else is "other".
SCALARS = {
    "float": "float32", "double": "float64", "bool": "bool",
    "int8_t": "int8", "uint8_t": "uint8", "int16_t": "int16", "uint16_t": "uint16",
    "int32_t": "int32", "uint32_t": "uint32", "int64_t": "int64", "uint64_t": "uint64",
    "size_t": "uint64", "ptrdiff_t": "int64", "intptr_t": "int64", "uintptr_t": "uint64",
    "half": "float16", "__half": "float16",
    "nv_bfloat16": "bfloat16", "__nv_bfloat16": "bfloat16",
}  # fmt: skip
BOOK = Path(__file__).parents[1] / "kernels"  # where what is included and not beside a file lies
_LONG = np.dtype("l").name  # as long as C's long: 8 bytes but on Windows
_QUALIFIERS = r"\b(?:const|volatile|__restrict__|__restrict|__grid_constant__)\b"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel, template arguments filled in.

    `dtype` is the NumPy dtype's name of the scalar or of what the pointer points to; None for types
    that only the compiler knows (structs), whose size alone is checked.
    """

    name: str
    type: str
    pointer: bool
    const: bool
    dtype: str | None


@dataclass(frozen=True)
class KernelSource:
    """A kernel as declared: its template's parameters, its own, and its launch bound."""

    name: str
    template: tuple[tuple[str, str], ...]  # (kind, name), e.g. (("int", "TILE"), ("class", "T"))
    parameters: tuple[tuple[str, str], ...]  # (type, name)
    bound: str  # the text in __launch_bounds__(…), or ""

    def signature(self, arguments: list[str]) -> tuple[Parameter, ...]:
        """Return the parameters with the template's `arguments` in place of its names."""
        given = dict(zip([name for _, name in self.template], arguments, strict=False))
        found = []
        for declared, name in self.parameters:
            text = re.sub(r"\b\w+\b", lambda m: given.get(m[0], m[0]), declared)
            pointee = text[: text.rfind("*")] if "*" in text else text
            const = bool(re.search(r"\bconst\b", pointee))
            text = " ".join(re.sub(_QUALIFIERS, " ", text).split()).replace(" *", "*")
            pointer = text.endswith("*")
            base = text.rstrip("* ")
            dtype = _dtype_of(base)
            if text.count("*") > 1:
                dtype = None
            found.append(Parameter(name, f"{'const ' * const}{text}", pointer, const, dtype))
        return tuple(found)


def _dtype_of(name: str) -> str | None:
    """Return the NumPy dtype of a C++ type's name, None for what is no scalar.

    The words of an integer stand in any order: `unsigned long`, `long unsigned int`.
    """
    words = Counter(name.split())
    if not words or set(words) - {"signed", "unsigned", "char", "short", "int", "long"}:
        return SCALARS.get(name)
    unsigned = "u" * words["unsigned"]
    if words["char"]:
        return f"{unsigned}int8"
    if words["short"]:
        return f"{unsigned}int16"
    return unsigned + ("int32", _LONG, "int64")[min(words["long"], 2)]


@dataclass
class Source:
    """A .cu file with its local includes pasted in, ready for a compiler.

    `text` has #line directives; `files` maps each file's name in messages to its text.
    """

    name: str
    text: str
    kernels: dict[str, KernelSource]
    files: dict[str, str] = field(default_factory=dict)
    dtype: str = "float32"  # what floats are read as

    def line(self, file: str, number: int) -> str:
        """Return a line of a file, or "" where there is none."""
        lines = self.files.get(file, "").splitlines()
        return lines[number - 1] if 0 < number <= len(lines) else ""


def read(path: Path, dtype: str = "float32") -> Source:
    """Return the source of the file at `path`.

    What it names in `#include "…"` is pasted in once: the file beside it, else the book's.

    dtype="float64": kernels written for floats compute with doubles, see `double_text`. They are
    launched the same way, on arrays of float64: so they are held against numerical gradients, for
    which float32 is too coarse.
    """
    files: dict[str, str] = {}
    text = _paste(path.resolve(), files, dtype == "float64")
    return Source(str(path.resolve()), text, find_kernels(text), files, dtype)


def _paste(path: Path, files: dict[str, str], double: bool) -> str:
    name = str(path)
    if name in files:
        return ""
    try:
        files[name] = text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FileNotFoundError(f"no CUDA source {name}: {error.strerror}") from error
    if double and not _MACHINE_CODE.search(blank_comments(text)):
        text = double_text(text)
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate(text.splitlines(), 1):
        include = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
        places = (path.parent / include[1], BOOK / include[1]) if include else ()
        target = next((place for place in places if place.exists()), None)
        if target is not None:
            lines += [_paste(target.resolve(), files, double), f'#line {number + 1} "{name}"']
        elif re.match(r"\s*#\s*pragma\s+once", line):
            lines.append("")  # each file is pasted once
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def blank_comments(text: str) -> str:
    """Return `text` with comments and string contents as spaces, every line where it was."""
    pattern = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"'
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.DOTALL)


def split(text: str, separator: str = ",") -> list[str]:
    """Split at separators that stand in no bracket: `a, b<c, d>, e[f]` → 3 parts.

    Inside round and square brackets `<` and `>` compare: `(a>b), c` → 2 parts.
    """
    parts, open_ones, start = [], [], 0
    for i, char in enumerate(text):
        inside = open_ones[-1] if open_ones else ""
        if char in "([{" or (char == "<" and inside not in ("(", "[")):
            open_ones.append(char)
        elif open_ones and (char in ")]}" or (char == ">" and inside == "<")):
            open_ones.pop()
        elif char == separator and not open_ones:
            parts.append(text[start:i].strip())
            start = i + 1
    last = text[start:].strip()
    return [*parts, last] if last or parts else []


def _closing(text: str, start: int) -> int:
    """Return the index after the bracket that closes the one at `start`."""
    pairs = {"(": ")", "<": ">"}
    opening, closing, depth = text[start], pairs[text[start]], 0
    for i in range(start, len(text)):
        depth += (text[i] == opening) - (text[i] == closing)
        if depth == 0:
            return i + 1
    raise CompileError(f"a {opening!r} is never closed: {text[start : start + 60]!r}")


def find_kernels(text: str) -> dict[str, KernelSource]:
    """Return the kernels declared in `text` by name."""
    code = blank_comments(text)
    kernels = {}
    for found in re.finditer(r"\b__global__\b", code):
        i, bound = found.end(), ""
        while True:
            word = re.compile(r"\s*(\w+)\s*").match(code, i)
            if word is None:
                break
            i = word.end()
            if word[1] == "__launch_bounds__":
                end = _closing(code, i)
                bound, i = split(code[i + 1 : end - 1])[0], end
            elif i < len(code) and code[i] == "(":
                end = _closing(code, i)
                parameters = tuple(_declared(p) for p in split(code[i + 1 : end - 1]))
                template = _template_before(code, found.start())
                kernels[word[1]] = KernelSource(word[1], template, parameters, bound)
                break
    return kernels


def _declared(parameter: str) -> tuple[str, str]:
    """`const float* __restrict__ x` → ("const float* __restrict__", "x").

    An array is a pointer, as C++ has it: `float x[]` and `float (*x)[32]` → ("float*", "x").
    """
    match = re.fullmatch(r"([^=]*?)(\w+)\s*(?:=.*)?", parameter, re.DOTALL)
    if match is not None:
        return match[1].strip(), match[2]
    array = re.fullmatch(r"(.*?)(\w+)\s*(?:\[[^\]]*\]\s*)+", parameter, re.DOTALL)
    rows = re.fullmatch(r"(.*?)\(\s*\*[\w\s]*?(\w+)\s*\)\s*\[.*\]\s*", parameter, re.DOTALL)
    if match := array or rows:
        return f"{match[1].strip()}*", match[2]
    raise CompileError(f"cannot read the kernel parameter {parameter!r}: give it a name")


def _template_before(code: str, start: int) -> tuple[tuple[str, str], ...]:
    """Return the parameters of the `template <…>` right before a kernel, () where there is none."""
    head = re.search(r"template\s*<([^;{}]*)>\s*(?:static\s+|inline\s+)*$", code[:start])
    if head is None:
        return ()
    return tuple(_declared(p.split("=")[0].strip()) for p in split(head[1]))


_FLOAT_FUNCTIONS = (
    "acos asin atan atan2 cbrt ceil copysign cos cosh cospi erf erfc exp exp2 expm1 fabs floor fma "
    "fmax fmin fmod hypot log log10 log1p log2 pow rint round rsqrt sin sinh sinpi sqrt tan tanh "
    "trunc"
)
_FAST_FUNCTIONS = "cos exp exp2 log log2 pow sin"  # __expf and so on: fast and less exact
_DOUBLE_NAMES = {
    "float": "double",
    **{f"float{n}": f"double{n}" for n in (1, 2, 3, 4)},
    **{f"make_float{n}": f"make_double{n}" for n in (1, 2, 3, 4)},
    **{f"{name}f": name for name in _FLOAT_FUNCTIONS.split()},
    **{f"__{name}f": name for name in _FAST_FUNCTIONS.split()},
    **{f"__f{name}_rn": f"__d{name}_rn" for name in ("add", "sub", "mul", "div", "sqrt")},
    "__fmaf_rn": "__fma_rn",
    "__fdividef": "__ddiv_rn",
    **{
        f"__float2{kind}_{how}": f"__double2{kind}_{how}"
        for kind in ("int", "uint", "ll", "ull")
        for how in ("rn", "rz", "ru", "rd")
    },
}
_NAMES = re.compile(rf"\b({'|'.join(_DOUBLE_NAMES)})\b")
_MACHINE_CODE = re.compile(r"\basm\b")  # files with it are for the types that it names
_INCLUDES = re.compile(r"^[ \t]*#[ \t]*include[^\n]*", re.MULTILINE)
_FLOAT_LITERALS = re.compile(r"(?<![\w.])((?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d+)?)[fF]\b")


def double_text(text: str) -> str:
    """Return `text` with each float read as a double: types, literals, and functions by name.

    `float4` becomes `double4`, `expf` and `__expf` become `exp`, `0.1f` becomes `0.1`. Comments
    stay as they are and no line moves. What looks into the bits of a float (`__float_as_int`) or
    is half as wide stays, too: kernels with such parts do not become more exact.
    """
    code, out, last = _INCLUDES.sub(lambda m: " " * len(m[0]), blank_comments(text)), [], 0
    found = [*_NAMES.finditer(code), *_FLOAT_LITERALS.finditer(code)]
    for match in sorted(found, key=re.Match.start):
        out += [text[last : match.start()], _DOUBLE_NAMES.get(match[1], match[1])]
        last = match.end()
    return "".join([*out, text[last:]])


def for_cpu(text: str) -> str:
    """Return `text` with each __shared__ declaration turned into a reference into the arena."""
    code = blank_comments(text)
    out, last = [], 0
    for found in re.finditer(r"(?:\b(?:extern|static)\s+)*\b__shared__\b", code):
        if found.start() < last:
            continue
        end = _end_of_declaration(code, found.end())
        outside = _at_file_scope(code[: found.start()])
        out += [text[last : found.start()], _in_arena(code[found.start() : end], outside)]
        last = end + 1
    return "".join([*out, text[last:]])


def _end_of_declaration(code: str, start: int) -> int:
    """Return where the `;` is that ends a declaration, those in a struct's braces apart."""
    depth = 0
    for i in range(start, len(code)):
        depth += (code[i] in "({[") - (code[i] in ")}]")
        if code[i] == ";" and depth == 0:
            return i
    raise CompileError(f"a declaration is never closed: {code[start : start + 60]!r}")


def _at_file_scope(before: str) -> bool:
    """Say whether what follows stands in no braces but those of namespaces and of extern "C"."""
    scopes = []
    for brace in re.finditer(r"((?:\bnamespace(?:\s+[\w:]+)?|\bextern)\s*)?\{|\}", before):
        if brace[0] != "}":
            scopes.append(brace[1] is not None)
        elif scopes:
            scopes.pop()
    return all(scopes)


_ATTRIBUTE = r"\b(?:alignas|__align__|__attribute__)\s*(\((?:[^()]|\([^()]*\))*\))"


def _in_arena(declaration: str, outside: bool) -> str:
    """Return what stands for a declaration, as many lines long: a reference for each variable."""
    dynamic = re.match(r"(?:static\s+)?extern\b", declaration) is not None
    body = re.sub(r"\b(?:extern|static|__shared__)\b", " ", declaration)
    # A struct written here gets its own declaration first; an alias is then the variables' type.
    struct = re.search(r"\b(?:struct|union|class)\b[^;{]*\{.*\}", body, re.DOTALL)
    before, whole, body = (
        (body[: struct.start()], struct[0], body[struct.end() :]) if struct else ("", "", body)
    )
    alignment = " ".join(f"__align__{m[1]}" for m in re.finditer(_ATTRIBUTE, before + body))
    qualifiers, body = (re.sub(_ATTRIBUTE, " ", piece) for piece in (before, body))
    parts = split(body)
    if not parts or re.search(r"(?<![=!<>])=(?!=)", body):
        raise CompileError(f"cannot read the declaration `{' '.join(declaration.split())}`: write "
                           "it as `__shared__ type name[size];`, with no value")  # fmt: skip
    code, kind = [], ""
    for part in parts:
        head, sizes = _sizes(part)
        found = re.fullmatch(r"(.*?)([*\s]*)(\w+)\s*", head, re.DOTALL)
        if found is None or (not kind and not whole and not found[1].strip()):
            raise CompileError(f"cannot read `{' '.join(part.split())}` in a declaration of shared "
                               "memory: write it as `__shared__ type name[size];`")  # fmt: skip
        name, stars = found[3], "".join(found[2].split())
        if not kind:
            kind = found[1].strip()
            if whole:
                code.append(f"typedef {whole} {name}_shared_struct;")
                kind = f"{qualifiers.strip()} {name}_shared_struct"
        if dynamic:  # the type of an element; it begins at a page, which is aligned for all
            sizes = sizes[sizes.index("]") + 1 :] if sizes else ""
        aligned = "" if dynamic else alignment
        code.append(f"typedef {kind}{stars} {name}_shared_type{sizes} {aligned};")
        macro = f"ENGINE_{'FILE_' * outside}{'DYNAMIC_' * dynamic}SHARED"
        code.append(f"{macro}({name}_shared_type, {name});")
    text = " ".join(code)
    return text + "\n" * (declaration.count("\n") - text.count("\n"))


def _sizes(declarator: str) -> tuple[str, str]:
    """`float tile[sizes[0]][33]` → ("float tile", "[sizes[0]][33]")."""
    end = declarator = declarator.rstrip()
    while end.endswith("]"):
        depth, i = 0, len(end)
        while i > 0:
            i -= 1
            depth += (end[i] == "]") - (end[i] == "[")
            if depth == 0:
                break
        end = end[:i].rstrip()
    return end, declarator[len(end) :]
