//! The languages. To add one, add an entry; see [`Runtime`] for what the fields mean.

use super::{Query, Rule, Runtime};

/// A runtime without a language: `app`, and everything that is not below.
pub(super) const COMMANDS_ONLY: Runtime = Runtime {
    names: &["app"],
    program: "",
    clean: &[],
    build: &[],
    exec: &[],
    query: Query::Unsupported,
};

const fn file(extension: &'static str, command: &'static str) -> Query {
    Query::File { extension, preamble: "", command }
}

const MAKE_CLEAN: &[Rule] = &[Rule("Makefile", "make clean")];
const EXECUTABLE: &[Rule] = &[Rule("main", "./main"), Rule("a.out", "./a.out")];

/// All runtimes.
pub(super) const RUNTIMES: &[Runtime] = &[
    Runtime {
        names: &["python"],
        program: "python3",
        build: &[Rule("setup.py", "{} -m pip install --user -e .")],
        exec: &[Rule("main.py", "{} main.py")],
        query: Query::Python,
        ..COMMANDS_ONLY
    },
    Runtime {
        names: &["c"],
        program: "cc",
        clean: MAKE_CLEAN,
        build: &[Rule("main.c", "{} -Wall -o main $(find . -name '*.c') -lrt -lm -lpthread -ldl")],
        exec: EXECUTABLE,
        query: file("c", "{} {file} -Wall -o ./main -lrt -lm -lpthread -ldl && ./main"),
    },
    Runtime {
        names: &["cpp"],
        program: "c++",
        clean: MAKE_CLEAN,
        build: &[Rule(
            "main.cpp",
            "{} -Wall -o main $(find . -name '*.cpp') -lrt -lm -lpthread -ldl",
        )],
        exec: EXECUTABLE,
        query: file("cpp", "{} {file} -Wall -o ./main -lrt -lm -lpthread -ldl && ./main"),
    },
    Runtime {
        names: &["golang"],
        program: "go",
        build: &[Rule(".", "{} build -o main")],
        exec: EXECUTABLE,
        query: file("go", "{} run {file}"),
        ..COMMANDS_ONLY
    },
    Runtime {
        names: &["rust"],
        program: "rustc",
        build: &[Rule("Cargo.toml", "cargo build"), Rule("main.rs", "{} -o main main.rs")],
        exec: &[Rule("main", "./main"), Rule("Cargo.toml", "cargo run --quiet")],
        query: file("rs", "{} -o ./main {file} && ./main"),
        ..COMMANDS_ONLY
    },
    Runtime {
        names: &["java"],
        program: "java",
        build: &[Rule(".", "javac -d . $(find . -name '*.java')")],
        exec: &[Rule("main/Main.class", "{} main.Main"), Rule("Main.class", "{} Main")],
        query: file("java", "{} {file}"),
        ..COMMANDS_ONLY
    },
    Runtime {
        names: &["haskell"],
        program: "ghc",
        build: &[Rule("main.hs", "{} --make main")],
        exec: EXECUTABLE,
        query: file("hs", "runhaskell {file}"),
        ..COMMANDS_ONLY
    },
    Runtime {
        names: &["julia"],
        program: "julia",
        exec: &[Rule("main.jl", "{} main.jl")],
        query: file("jl", "{} {file}"),
        ..COMMANDS_ONLY
    },
    Runtime {
        names: &["lua"],
        program: "lua",
        exec: &[Rule("main.lua", "{} main.lua")],
        query: file("lua", "{} {file}"),
        ..COMMANDS_ONLY
    },
    Runtime {
        names: &["nodejs"],
        program: "node",
        exec: &[Rule("main.js", "{} main.js")],
        query: file("js", "{} {file}"),
        ..COMMANDS_ONLY
    },
    Runtime {
        names: &["php"],
        program: "php",
        exec: &[Rule("main.php", "{} main.php")],
        query: Query::File { extension: "php", preamble: "<?php\n", command: "{} {file}" },
        ..COMMANDS_ONLY
    },
    Runtime {
        names: &["octave"],
        program: "octave-cli",
        exec: &[Rule("main.m", "{} main.m")],
        query: file("m", "{} {file}"),
        ..COMMANDS_ONLY
    },
    Runtime {
        names: &["r"],
        program: "Rscript",
        exec: &[Rule("main.R", "Rscript main.R")],
        // The image's program is R itself, which is not for scripts.
        query: file("R", "Rscript {file}"),
        ..COMMANDS_ONLY
    },
    Runtime {
        names: &["scheme"],
        program: "scheme",
        query: file("scm", "{} --quiet < {file}"),
        ..COMMANDS_ONLY
    },
];
