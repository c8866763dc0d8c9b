//! Makes the libraries: see `src/lib.rs`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The name of each library, the files in which it may lie, and its functions, a line each.
const FUNCTIONS: &str = include_str!("functions.txt");

/// Keeps what the arguments of a call lie in while `kino_cuda_resolve` looks for the function,
/// whose number is on the stack, then goes on there as if it had been called (System V ABI).
const LAZY: &str = "\
    .text
kino_cuda_lazy:
    push %rdi; push %rsi; push %rdx; push %rcx; push %r8; push %r9; push %rax
    sub $136, %rsp
    movups %xmm0, (%rsp); movups %xmm1, 16(%rsp); movups %xmm2, 32(%rsp); movups %xmm3, 48(%rsp)
    movups %xmm4, 64(%rsp); movups %xmm5, 80(%rsp); movups %xmm6, 96(%rsp); movups %xmm7, 112(%rsp)
    mov 192(%rsp), %rdi
    call kino_cuda_resolve
    mov %rax, %r11
    movups (%rsp), %xmm0; movups 16(%rsp), %xmm1; movups 32(%rsp), %xmm2; movups 48(%rsp), %xmm3
    movups 64(%rsp), %xmm4; movups 80(%rsp), %xmm5; movups 96(%rsp), %xmm6; movups 112(%rsp), %xmm7
    add $136, %rsp
    pop %rax; pop %r9; pop %r8; pop %rcx; pop %rdx; pop %rsi; pop %rdi
    add $8, %rsp
    jmp *%r11
";

/// An archive of nothing.
const EMPTY: &[u8] = b"!<arch>\n";

fn main() {
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rerun-if-changed=functions.txt");
    println!("cargo::rerun-if-changed=src/resolve.c");
    let target = |what| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("OS") != "linux" || target("ARCH") != "x86_64" {
        return;
    }
    let out = PathBuf::from(std::env::var("OUT_DIR").unwrap_or_default());
    let libraries: Vec<Library> = FUNCTIONS.lines().filter_map(Library::read).collect();
    write(&out.join("jumps.S"), jumps(&libraries));
    write(&out.join("tables.h"), tables(&libraries));
    // The jumps of all libraries lie in the first, the others are empty.
    cc::Build::new()
        .file(out.join("jumps.S"))
        .file("src/resolve.c")
        .include(&out)
        .cargo_metadata(false)
        .compile(libraries[0].name);
    for library in &libraries[1..] {
        write(&out.join(format!("lib{}.a", library.name)), EMPTY);
    }
    runtime(&out.join("libcudart.a"));
    println!("cargo::rustc-link-search=native={}", out.display());
}

/// Puts the toolkit's static runtime library, which candle's kernels are linked with, where the
/// linker finds it before the shared one. Without a toolkit there are no kernels that need it.
fn runtime(to: &Path) {
    let nvcc = std::env::var_os("NVCC").map(PathBuf::from);
    let named = ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(std::env::var_os);
    let beside = nvcc.into_iter().chain(nvcc_on_path()).filter_map(|nvcc| {
        // A link on the path leads to the toolkit's own folder.
        let nvcc = nvcc.canonicalize().unwrap_or(nvcc);
        Some(nvcc.parent()?.parent()?.to_path_buf())
    });
    let toolkits = named.map(PathBuf::from).chain(beside);
    let toolkits = toolkits.chain(["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from));
    let folders = ["lib64", "lib", "targets/x86_64-linux/lib"];
    let mut places = toolkits.flat_map(|toolkit| folders.map(|folder| toolkit.join(folder)));
    let found = places.find_map(|place| std::fs::read(place.join("libcudart_static.a")).ok());
    write(to, found.as_deref().unwrap_or(EMPTY));
}

/// The compiler that candle's own build takes where none is named.
fn nvcc_on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("nvcc")).find(|nvcc| nvcc.is_file())
}

fn write(path: &Path, contents: impl AsRef<[u8]>) {
    if let Err(error) = std::fs::write(path, contents) {
        println!("cargo::error={} cannot be written: {error}", path.display());
    }
}

/// A library of NVIDIA's.
struct Library {
    /// As the linker knows it: `cuda` for `-lcuda`.
    name: &'static str,
    /// The files in which it may lie, the best first.
    files: Vec<&'static str>,
    functions: Vec<&'static str>,
}

impl Library {
    fn read(line: &'static str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let (files, functions) = words.partition(|word| word.contains(".so"));
        Some(Self { name, files, functions })
    }
}

/// The functions: each jumps to where its slot points, at first to the search for the real one.
fn jumps(libraries: &[Library]) -> String {
    let mut code = String::from(
        "    .section .data.rel.kino, \"aw\"\n    .align 8\n    .globl kino_cuda_slots\n    \
         .hidden kino_cuda_slots\nkino_cuda_slots:\n",
    ) + LAZY;
    let functions = libraries.iter().flat_map(|library| &library.functions);
    for (number, name) in functions.enumerate() {
        let _ = write!(
            code,
            "    .globl {name}\n    .type {name}, @function\n{name}:\n    \
             jmp *kino_cuda_slots+{}(%rip)\n1:  pushq ${number}\n    jmp kino_cuda_lazy\n    \
             .size {name}, .-{name}\n    .pushsection .data.rel.kino, \"aw\"\n    .quad 1b\n    \
             .popsection\n",
            8 * number
        );
    }
    code + "    .section .note.GNU-stack, \"\", @progbits\n"
}

/// What `resolve.c` knows of the functions: their names, the library of each, the files of each
/// library.
fn tables(libraries: &[Library]) -> String {
    let (mut names, mut of, mut files) = (String::new(), String::new(), String::new());
    for (number, library) in libraries.iter().enumerate() {
        for name in &library.functions {
            let _ = writeln!(names, "\"{name}\",");
            let _ = write!(of, "{number},");
        }
        let own: Vec<_> = library.files.iter().map(|file| format!("\"{file}\"")).collect();
        let _ = writeln!(files, "{{{}, 0}},", own.join(", "));
    }
    format!(
        "static const char *const names[] = {{\n{names}}};\n\
         static const unsigned char library_of[] = {{{of}}};\n\
         static const char *const files[][4] = {{\n{files}}};\n\
         enum {{ LIBRARIES = {} }};\n",
        libraries.len()
    )
}
