//! The layout of every struct of the ABI: Rust's, the committed table's and the C compilers' are the same.
//!
//! `UPDATE=1` writes the table anew. A changed line, other than an appended one, breaks every plugin.
#![cfg(target_pointer_width = "64")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::fmt::Write as _;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

use pajamas_plugin_api::abi::convert::SizedStruct;
use pajamas_plugin_api::abi::{
    PjDtype, PjEvent, PjHost, PjPart, PjPlugin, PjRequest, PjSink, PjStr, PjTensor, PjTopLogprob,
};

fn field_size<T, F>(_: impl Fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Writes a struct's lines. The pattern makes the compiler check that no field is left out.
macro_rules! describe {
    ($table:ident, $type:ident, $name:literal, $required:expr, [$($field:ident)*]) => {
        let _exhaustive = |$type { $($field: _),* }: $type| ();
        let (size, align) = (size_of::<$type>(), align_of::<$type>());
        writeln!($table, "{} size {size} align {align} required {}", $name, $required).unwrap();
        $(
            let (offset, size) = (offset_of!($type, $field), field_size(|s: &$type| &s.$field));
            writeln!($table, "  {} offset {offset} size {size}", stringify!($field)).unwrap();
        )*
    };
}

/// The layout as text: `required` is the size up to the end of the fields that every version has.
fn table() -> String {
    let mut table = String::new();
    describe!(table, PjStr, "pj_str", size_of::<PjStr>(), [ptr len]);
    describe!(table, PjDtype, "pj_dtype", size_of::<PjDtype>(), [code bits lanes]);
    describe!(table, PjTopLogprob, "pj_top_logprob", size_of::<PjTopLogprob>(), [token logprob text]);
    describe!(table, PjHost, "pj_host", PjHost::REQUIRED, [
        struct_size abi_major abi_minor reserved ctx log_enabled log get_extension
    ]);
    describe!(table, PjTensor, "pj_tensor", PjTensor::REQUIRED, [
        struct_size dtype rank reserved name shape data data_len
    ]);
    describe!(table, PjEvent, "pj_event", PjEvent::REQUIRED, [
        struct_size kind code flags token logprob index fraction sample_rate_hz channels prompt_tokens cached_tokens
        completion_tokens top_len top_size tensors_len tensor_size reserved text json data data_len top tensors
    ]);
    describe!(table, PjSink, "pj_sink", PjSink::REQUIRED, [struct_size reserved ctx push cancelled]);
    describe!(table, PjPart, "pj_part", PjPart::REQUIRED, [
        struct_size kind flags dtype rank reserved name meta_json shape data data_len
    ]);
    describe!(table, PjRequest, "pj_request", PjRequest::REQUIRED, [
        struct_size parts_len part_size reserved task params_json parts deadline_ms
    ]);
    describe!(table, PjPlugin, "pj_plugin", PjPlugin::REQUIRED, [
        struct_size abi_major abi_minor min_host_minor id version build_json init probe inspect load submit cancel
        release_job stats unload get_extension shutdown
    ]);
    table
}

fn table_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layout.txt")
}

#[test]
fn rust_agrees_with_the_committed_table() {
    let path = table_path();
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(&path, table()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert_eq!(committed, table(), "{} and src/abi.rs differ", path.display());
}

#[test]
fn c_compilers_agree_with_the_committed_table() {
    let committed = std::fs::read_to_string(table_path()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("layout.c");
    std::fs::write(&source, assertions(&committed)).unwrap();
    for (compiler, options) in [
        ("cc", ["-std=c11", "-x", "c"]),
        ("clang", ["-std=c11", "-x", "c"]),
        ("g++", ["-std=c++11", "-x", "c++"]),
        ("clang++", ["-std=c++11", "-x", "c++"]),
    ] {
        let mut command = Command::new(compiler);
        command.args(options).args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"]);
        command.arg("-I").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include")).arg(&source);
        match command.output() {
            Err(problem) => println!("skipped: {compiler}: {problem}"),
            Ok(output) => {
                assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
            }
        }
    }
}

/// A C program whose compilation checks each line of the table.
fn assertions(table: &str) -> String {
    let mut program = String::from(
        "#include <stddef.h>\n#include \"pajamas_plugin.h\"\n\
         #ifdef __cplusplus\n#define CHECK(condition) static_assert(condition, #condition)\n#define ALIGN(type) alignof(type)\n\
         #else\n#define CHECK(condition) _Static_assert(condition, #condition)\n#define ALIGN(type) _Alignof(type)\n#endif\n",
    );
    let mut name = "";
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [field, "offset", offset, "size", size] => {
                writeln!(program, "CHECK(offsetof({name}, {field}) == {offset});").unwrap();
                writeln!(program, "CHECK(sizeof((({name} *)0)->{field}) == {size});").unwrap();
            }
            [word, "size", size, "align", align, "required", _] => {
                name = word;
                writeln!(program, "CHECK(sizeof({name}) == {size});\nCHECK(ALIGN({name}) == {align});")
                    .unwrap();
            }
            _ => panic!("the table has a line of another form: {line}"),
        }
    }
    program
}
