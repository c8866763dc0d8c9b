//! What a program meets that is linked with the libraries made here: nothing where NVIDIA's are
//! not, and NVIDIA's own functions, with all their arguments, where they are.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::path::Path;
use std::process::Command;

/// Calls functions of three libraries, one of them twice; arguments are whole numbers and
/// floating point ones, in registers and on the stack.
const PROGRAM: &str = r#"
#include <stdio.h>
int cuInit(unsigned flags);
int cuDeviceGetCount(int *count);
const char *cublasGetStatusName(int status);
int curandGenerateNormalDouble(void *g, double *out, unsigned long n, double mean, double deviation);
int cublasGemmEx(void *, int, int, int, int, int, const void *, const void *, int, int, const void *,
                 int, int, const void *, void *, int, int, int, int);
int main(void) {
    int count = -1;
    printf("%d ", cuInit(3));
    printf("%d ", cuInit(4));
    printf("%d ", cuDeviceGetCount(&count));
    printf("%d ", count);
    printf("%s ", cublasGetStatusName(1));
    printf("%d ", curandGenerateNormalDouble(0, 0, 7, 0.5, 0.25));
    printf("%d", cublasGemmEx(0, 1, 2, 3, 4, 5, 0, 0, 8, 9, 0, 11, 12, 0, 0, 15, 16, 17, 18));
    return 0;
}
"#;

const DRIVER: &str = "
int cuInit(unsigned flags) { return flags + 100; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
";

const CUBLAS: &str = r#"
const char *cublasGetStatusName(int status) { return status == 1 ? "name" : "wrong"; }
int cublasGemmEx(void *h, int a, int b, int c, int d, int e, const void *f, const void *g, int i, int j,
                 const void *k, int l, int m, const void *n, void *o, int p, int q, int r, int s) {
    return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * i + 7 * j + 8 * l + 9 * m + 10 * p + 11 * q + 12 * r
        + 13 * s + (h || f || g || k || n || o);
}
"#;

const CURAND: &str = "
int curandGenerateNormalDouble(void *g, double *out, unsigned long n, double mean, double deviation) {
    return n + 100 * (mean == 0.5) + 1000 * (deviation == 0.25);
}
";

fn compile(folder: &Path, name: &str, code: &str, arguments: &[&str]) {
    let source = folder.join(format!("{name}.c"));
    std::fs::write(&source, code).unwrap();
    let done = Command::new("cc")
        .arg(&source)
        .args(arguments)
        .arg("-o")
        .arg(folder.join(name))
        .output()
        .expect("a C compiler made the libraries");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn said(folder: &Path, libraries: &str) -> String {
    let mut program = Command::new(folder.join("program"));
    let out = program.env("KINO_CUDA_LIBS", libraries).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn libraries_are_found_when_they_are_called_and_missed_without_harm() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("jumps");
    std::fs::create_dir_all(&folder).unwrap();
    let made = format!("-L{}", env!("OUT_DIR"));
    let libraries = ["-lcuda", "-lcublas", "-lcublasLt", "-lcurand", "-lnvrtc", "-lcudart"];
    compile(&folder, "program", PROGRAM, &[&[&*made], &libraries[..]].concat());
    let needed = std::fs::read(folder.join("program")).unwrap();
    let contains = |text: &[u8]| needed.windows(text.len()).any(|part| part == text);
    assert!(contains(b"libcublas.so.13\0") && contains(b"libc.so.6\0"), "names to look for");

    // A machine that has NVIDIA's driver would answer here otherwise: it is not asked.
    if Command::new("nvidia-smi").output().is_err() {
        let missed = said(&folder, "/nowhere::");
        assert_eq!(missed, "34 34 34 -1 the library is not on this machine 34 34");
    }
    for (name, code) in
        [("libcuda.so.1", DRIVER), ("libcublas.so.12", CUBLAS), ("libcurand.so.10", CURAND)]
    {
        compile(&folder, name, code, &["-shared", "-fPIC"]);
    }
    if Command::new("nvidia-smi").output().is_err() {
        let found = said(&folder, &format!("/nowhere:{}", folder.display()));
        let sum = 1 + 4 + 9 + 16 + 25 + 48 + 63 + 88 + 108 + 150 + 176 + 204 + 234;
        assert_eq!(found, format!("103 104 0 2 name 1107 {sum}"));
    }
}
