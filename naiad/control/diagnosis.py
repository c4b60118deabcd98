"""Says why a service does not serve: a stable code, the evidence, and what to do.

Codes are a contract and never renamed. `diagnose` reads only what it is given, so it answers the same every time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from naiad.control.schema import Diagnosis, Fix
from naiad.errors import NaiadError

_TITLES = {
    "PATH_NOT_FOUND": ("model", "the model's files are not there", "找不到模型文件"),
    "PATH_AMBIGUOUS": ("model", "the path holds several models", "路径中有多个模型"),
    "PATH_OUTSIDE_ROOTS": ("model", "the path is outside the allowed folders", "路径不在允许的目录内"),
    "PATH_REFUSED": ("model", "the path is refused", "路径被拒绝"),
    "LAYOUT_NO_VERSION": ("model", "the model directory has no version directory", "模型目录缺少版本目录"),
    "WEIGHTS_ONLY": ("model", "the file holds weights without a model", "文件只有权重, 没有模型"),
    "UNSAFE_PICKLE": ("model", "the file is a pickle, which can run code", "文件是可执行代码的 pickle"),
    "UNSAFE_CODE": ("model", "the file holds code that would run when it is loaded", "文件含有加载时会执行的代码"),
    "CODE_NOT_TRUSTED": ("model", "the files hold code that nobody has trusted", "文件包含未受信任的代码"),
    "FILE_UNREADABLE": ("model", "the file is not a complete model file", "模型文件不完整"),
    "EMPTY_FILE": ("model", "the model file is empty", "模型文件为空"),
    "TRUNCATED": ("model", "the model file breaks off", "模型文件被截断"),
    "LFS_POINTER": ("model", "the file is a Git LFS pointer, not the model", "文件是 Git LFS 指针, 不是模型"),
    "NOT_A_MODEL": ("model", "the file is no model", "文件不是模型"),
    "UNKNOWN_FORMAT": ("model", "the file is in no format that Naiad knows", "无法识别的模型格式"),
    "FORMAT_NOT_SERVED": ("model", "the format is recognised, but not served", "能识别该格式, 但暂不支持推理"),
    "UNTRUSTED_TYPES": ("model", "the file holds types that are not trusted", "文件含有不受信任的类型"),
    "IO_UNSUPPORTED": ("model", "the model takes or gives what is no tensor", "模型的输入或输出不是张量"),
    "OPSET_TOO_NEW": ("model", "the model's operator set is too new for the runtime", "模型的算子集版本过新"),
    "IR_TOO_NEW": ("model", "the model's format version is too new for the runtime", "模型的格式版本过新"),
    "VLLM_BACKEND_DEPRECATED": ("model", "language models are served by vLLM itself", "语言模型由 vLLM 引擎提供服务"),
    "BACKEND_MISMATCH": ("model", "the file is of another backend", "模型文件与后端不符"),
    "CUDA_ONLY_TRACE": ("model", "the model was saved for a GPU only", "模型只能在 GPU 上运行"),
    "CONFIG_INVALID": ("model", "the model configuration is wrong", "模型配置有误"),
    "IO_MISMATCH": ("model", "declared inputs or outputs do not fit the model", "声明的输入输出与模型不符"),
    "DTYPE_MISMATCH": ("model", "a declared datatype does not fit the model", "声明的数据类型与模型不符"),
    "BATCH_FROZEN": ("model", "the model was traced with a fixed batch size", "模型的批大小被固定"),
    "ENV_MISSING_BACKEND": ("environment", "the framework is not installed", "缺少推理框架"),
    "MISSING_MODULE": ("environment", "a Python package is missing", "缺少 Python 包"),
    "ENV_NOT_READY": ("environment", "the environment is not ready", "环境未就绪"),
    "ENV_UNUSABLE": ("environment", "the environment's Python cannot run a worker", "环境中的 Python 无法运行"),
    "MISSING_OP": ("model", "the model uses an operator that is not installed", "缺少算子"),
    "HOST_OOM": ("start", "out of memory", "内存不足"),
    "DISK_FULL": ("start", "the disk is full", "磁盘空间不足"),
    "CRASH_LOOP": ("start", "the model's worker crashes again and again", "推理进程反复崩溃"),
    "SLOW_START": ("start", "the model did not become ready in time", "启动超时"),
    "PROBE_FAILING": ("probe", "the model fails on its first inputs", "就绪检查失败"),
    "SERVER_UNREACHABLE": ("start", "the inference server does not answer", "推理服务器无响应"),
    "LOAD_FAILED": ("start", "the model could not be loaded", "模型加载失败"),
}

_FIXES = {
    "WEIGHTS_ONLY": "export the model itself: torch.jit.trace(model, example).save('model.pt')",
    "UNSAFE_PICKLE": "export the model in a format that holds no code, or trust this file explicitly",
    "UNSAFE_CODE": "export the model in a form that holds the computation itself, such as a SavedModel",
    "UNTRUSTED_TYPES": "look at the types that are named, and list those that you trust",
    "FILE_UNREADABLE": "copy or download the file again, and compare its size with the original's",
    "IO_UNSUPPORTED": "export the model with tensors as its inputs and outputs",
    "MISSING_OP": "install the package that brings the operator into the model's environment",
    "EMPTY_FILE": "copy or download the file again, and compare its size with the original's",
    "TRUNCATED": "copy or download the file again, and compare its size with the original's",
    "LFS_POINTER": "run 'git lfs pull' in the repository that it came from",
    "NOT_A_MODEL": "download the file itself; the link led to a page about it",
    "UNKNOWN_FORMAT": "export the model in a format that is served",
    "FORMAT_NOT_SERVED": "export the model in a format that is served",
    "OPSET_TOO_NEW": "upgrade the runtime, or export the model with an older operator set",
    "IR_TOO_NEW": "upgrade the runtime, or convert the model to an older version of its format",
    "VLLM_BACKEND_DEPRECATED": "serve it with 'engine: vllm', which comes with a later version of Naiad",
    "CUDA_ONLY_TRACE": "save the model from the CPU, or serve it on a GPU",
    "BACKEND_MISMATCH": "leave the backend out of the configuration, or put the right file there",
    "IO_MISMATCH": "declare the inputs and outputs as the model has them, or leave them out",
    "DTYPE_MISMATCH": "declare the datatype that the model has, or leave the inputs and outputs out",
    "BATCH_FROZEN": "trace the model again with a dynamic batch, or declare the fixed size instead of -1",
    "ENV_MISSING_BACKEND": "install the framework beside the server",
    "ENV_NOT_READY": "read its build log, then change what it asks for",
    "ENV_UNUSABLE": "build the environment again on a machine like this one",
    "MISSING_MODULE": "add the package to the environment's requirements, or install it beside the server",
    "CRASH_LOOP": "read the last lines of the log for the cause",
    "SLOW_START": "look at the log; a large model may need more time",
    "PROBE_FAILING": "declare the inputs with the shapes that the model takes",
    "HOST_OOM": "give the machine more memory or remove another service",
    "DISK_FULL": "make room under the state folder",
}

_COMMANDS = {
    "ENV_MISSING_BACKEND": "pip install 'naiad[torch]'",
    "CRASH_LOOP": "naiad logs {service}",
    "SLOW_START": "naiad logs {service}",
    "LOAD_FAILED": "naiad logs {service}",
    "PROBE_FAILING": "naiad logs {service}",
}

# First match wins, so the narrow causes stand before the wide ones.
_RULES = [
    ("WEIGHTS_ONLY", r"\bstate[ _-]dict\b|weights only|holds (only )?weights|WEIGHTS_ONLY"),
    ("UNSAFE_PICKLE", r"\bpickle|UNSAFE_PICKLE"),
    ("UNSAFE_CODE", r"UNSAFE_CODE"),
    ("LFS_POINTER", r"\bLFS\b"),
    ("FILE_UNREADABLE", r"truncated|not a zip|central directory|is empty \(0 bytes\)"),
    ("ENV_UNUSABLE", r"ENV_UNUSABLE"),
    (
        "ENV_MISSING_BACKEND",
        r"ENV_MISSING_BACKEND|No module named '(torch|onnxruntime|tensorflow|openvino)'"
        r"|(torch|framework) is not installed",
    ),
    ("MISSING_MODULE", r"MISSING_MODULE|ModuleNotFoundError|No module named"),
    ("MISSING_OP", r"MISSING_OP|Unknown builtin op|unknown operator|Could not find .*schema"),
    (
        "BATCH_FROZEN",
        r"BATCH_FROZEN|batch (size|dimension)? ?(is |was )?(frozen|fixed)|does not batch|cannot batch|not batchable",
    ),
    ("CRASH_LOOP", r"CRASH_LOOP|crash(es|ed)? (again|\d+ times|loop)|signal \d+|worker (died|lost|ended)"),
    ("HOST_OOM", r"out of memory|MemoryError|Cannot allocate memory|exit(ed with)? (code )?137"),
    ("DISK_FULL", r"No space left on device"),
    ("DTYPE_MISMATCH", r"(data ?type|dtype).*(expect|got|but|differ|mismatch|does not)"),
    (
        "IO_MISMATCH",
        r"\b(inputs?|outputs?|dims|shape|argument)\b.*"
        r"(expect|got|but the|differ|does not (fit|match|exist)|no such|unknown)",
    ),
    ("CONFIG_INVALID", r"config\.pbtxt|model configuration|ModelConfig"),
    ("SLOW_START", r"timed? ?out|not ready (in|after|within)"),
    ("PROBE_FAILING", r"\b(probe|dry run|warm-?up)\b"),
]
_NAMED = re.compile(r"\(([A-Z][A-Z0-9_]+)\)")
_INSTALL = re.compile(r"pip install \S+$")
_FIX = re.compile(r" \(fix: (.+?)\)(?=;?\s*$)", re.DOTALL)
_FRAME = re.compile(
    r"load failed for model '[^'\n]*': version \d+ is at UNAVAILABLE state: Internal: (.*);\s*", re.DOTALL
)
"""What the protocol puts around the cause of a load that failed (W69): it says nothing about a service."""
_COMPILED = [(code, re.compile(pattern, re.IGNORECASE | re.DOTALL)) for code, pattern in _RULES]


class Broken(NaiadError):
    """Something that keeps a service from starting, with its code already known."""

    def __init__(self, code: str, cause: str, *, fix: str = "") -> None:
        super().__init__(cause)
        self.code = code
        self.cause = cause
        self.fix = fix


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was seen: the server's own words, and the stage if it said one."""

    text: str
    service: str


def classify(text: str) -> str:
    """The code of a failure text: the one that it names in brackets, else by its words; else `LOAD_FAILED`."""
    named = next((code for code in _NAMED.findall(text) if code in _TITLES), None)
    return named or next((code for code, pattern in _COMPILED if pattern.search(text)), "LOAD_FAILED")


def diagnose(evidence: Evidence) -> Diagnosis:
    """The diagnosis of what a server answered to a load, or says in its index: its fix comes before ours."""
    framed = _FRAME.fullmatch(evidence.text)
    text = framed[1] if framed else evidence.text
    told = _FIX.search(text)
    seen = replace(evidence, text=_FIX.sub("", text))
    return make(classify(text), seen, fix=told[1] if told else "")


def of_broken(broken: Broken, service: str) -> Diagnosis:
    """The diagnosis of something that was found before the server was asked."""
    return make(broken.code, Evidence(text=broken.cause, service=service), fix=broken.fix)


def make(code: str, evidence: Evidence, *, fix: str = "") -> Diagnosis:
    """A diagnosis with this code's title and fixes."""
    stage, title, title_zh = _TITLES[code]
    text = fix or _FIXES.get(code, "")
    named = _INSTALL.search(fix)
    command = named[0] if named else _COMMANDS.get(code)
    fixes = [Fix(text=text or "read the log", command=command and command.format(service=evidence.service))]
    lines = [line.strip() for line in evidence.text.splitlines() if line.strip()]
    return Diagnosis(
        stage=stage,
        code=code,
        title=title,
        title_zh=title_zh,
        evidence=lines[:20],
        fixes=fixes if text or command else [],
    )
