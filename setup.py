"""Builds the compiled core. Everything else stands in pyproject.toml.

Each instruction set is one object file of csrc/ with its own flags; all of them are linked into
``fastmlp._core.cpu``, which picks one when it is imported. ``FASTMLP_PURE=1`` builds no extension.
"""

import os
import platform
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

CORE = Path("fastmlp/_core")
HEADERS = [str(path) for path in sorted([*Path("csrc").glob("*.h"), *CORE.glob("*.h")])]
PXDS = [str(path) for path in sorted(CORE.glob("*.pxd"))]

# Never -march=native: a wheel has to run elsewhere. Never -ffast-math: it switches denormals off
# for the whole process. No contraction: a multiply-add is fused where the source says so, and only
# there.
KERNEL_FLAGS = ["-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
# The modules only hand arrays and threads to the kernels.
MODULE_FLAGS = ["-O2", "-std=gnu11"]
# No debug sections, and no symbols that another library could take for its own.
COMMON_FLAGS = ["-g0", "-fvisibility=hidden", "-Wall", "-Wextra"]

ISA_FLAGS = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    avx2 = ["-mavx2", "-mfma", "-mprfchw"]
    avx512 = [*avx2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
    ISA_FLAGS |= {"avx2": avx2, "avx512": [*avx512, "-mprefer-vector-width=512"]}
elif platform.machine().lower() in ("aarch64", "arm64"):
    ISA_FLAGS |= {"neon": []}

CYTHON_DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "freethreading_compatible": True,
}

OPENMP_PROBE = """
#include <omp.h>
int main(void) {
  int n = 0;
#pragma omp parallel reduction(+ : n)
  n += 1;
  return n == omp_get_max_threads() ? 0 : 1;
}
"""


class BuildCore(build_ext):
    """Compiles csrc/ an instruction set at a time, probes OpenMP, explains a failure."""

    def finalize_options(self):
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count()

    def build_extensions(self):
        try:
            compile_flags, link_flags = self.openmp_flags()
            objects = self.compile_csrc()
            self.run_cython()
            for extension in self.extensions:
                extension.extra_compile_args += MODULE_FLAGS + COMMON_FLAGS + compile_flags
                extension.extra_link_args += link_flags
                if extension.name == "fastmlp._core.cpu":
                    extension.extra_objects += objects
                    extension.depends += objects
            super().build_extensions()
        except (BaseError, CCompilerError) as error:
            raise SystemExit(
                f"\nfastmlp: the compiled core could not be built: {error}\n"
                "It needs GCC or Clang and Python's headers. To install without it, running on "
                "NumPy (many times slower), set FASTMLP_PURE=1:\n\n"
                "    FASTMLP_PURE=1 pip install .\n"
            ) from error

    def run_cython(self):
        """Translate the modules into the build's folder, so that no C lies beside the sources."""
        from Cython.Build import cythonize

        modules = cythonize(
            self.extensions,
            build_dir=self.build_temp,
            compiler_directives=CYTHON_DIRECTIVES,
            show_all_warnings=False,
        )
        sources = {module.name: module.sources for module in modules}
        for extension in self.extensions:
            extension.sources = sources[extension.name]

    def compile_csrc(self):
        # The compiler command has Python's own flags too; NDEBUG and -O there are harmless.
        flags = {"dispatch": []} | {f"isa_{isa}": flags for isa, flags in ISA_FLAGS.items()}
        with ThreadPoolExecutor(self.parallel) as pool:
            return [
                name for names in pool.map(self.compile_c, flags, flags.values()) for name in names
            ]

    def compile_c(self, stem, flags):
        return self.compiler.compile(
            [f"csrc/{stem}.c"],
            output_dir=self.build_temp,
            include_dirs=["csrc"],
            extra_postargs=[*KERNEL_FLAGS, *COMMON_FLAGS, *flags],
            depends=HEADERS,
        )

    def openmp_flags(self):
        """Compile and link flags with which an OpenMP program builds; none where none does."""
        candidates = [(["-fopenmp"], ["-fopenmp"])]
        if sys.platform == "darwin":
            candidates.append((["-Xpreprocessor", "-fopenmp"], ["-lomp"]))
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(OPENMP_PROBE)
            for compile_flags, link_flags in candidates:
                try:
                    objects = self.compiler.compile(
                        [str(source)], output_dir=folder, extra_postargs=compile_flags
                    )
                    self.compiler.link_executable(
                        objects, str(Path(folder, "probe")), extra_postargs=link_flags
                    )
                except (BaseError, CCompilerError):
                    continue
                return compile_flags, link_flags
        print("fastmlp: no OpenMP; the compiled core will use one thread", file=sys.stderr)
        return [], []


def extensions():
    if os.environ.get("FASTMLP_PURE", "0") not in ("", "0"):
        return []
    return [
        Extension(
            ".".join(path.with_suffix("").parts),
            [str(path)],
            include_dirs=["csrc", str(CORE)],
            depends=[*HEADERS, *PXDS],
        )
        for path in sorted(CORE.glob("*.pyx"))
    ]


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildCore})
