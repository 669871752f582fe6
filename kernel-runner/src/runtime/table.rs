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
    preparation: None,
};

const fn file(extension: &'static str, command: &'static str) -> Query {
    Query::File { extension, preamble: "", command }
}

const MAKE_CLEAN: &[Rule] = &[Rule("Makefile", "make clean")];
/// The first program that cargo made, debug before release.
const CARGO_OUTPUT: &str = "exec \"$(find target/debug target/release -maxdepth 1 -type f \
     -perm -100 2> /dev/null | sort | head -n 1)\"";
/// A file must have the name of its public class. Compilers before version 11 do not run files.
const JAVA_QUERY: &str = "\
     class=$(sed -n 's/^.*public  *\\(final  *\\)*class  *\\([A-Za-z0-9_]*\\).*$/\\2/p' {file} | head -n 1); \
     folder=$(mktemp -d) && trap 'rm -rf \"$folder\"' EXIT && \
     cp {file} \"$folder/${class:=Main}.java\" && \
     javac -d \"$folder\" \"$folder/$class.java\" && {} -cp \"$folder:.\" \"$class\"";
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
        build: &[Rule(
            "main.c",
            "set -f; IFS='\n'; {} -Wall -o main $(find . -name '*.c') -lrt -lm -lpthread -ldl",
        )],
        exec: EXECUTABLE,
        query: file("c", "{} {file} -Wall -o ./main -lrt -lm -lpthread -ldl && ./main"),
        ..COMMANDS_ONLY
    },
    Runtime {
        names: &["cpp"],
        program: "c++",
        clean: MAKE_CLEAN,
        build: &[Rule(
            "main.cpp",
            "set -f; IFS='\n'; {} -Wall -o main $(find . -name '*.cpp') -lrt -lm -lpthread -ldl",
        )],
        exec: EXECUTABLE,
        query: file("cpp", "{} {file} -Wall -o ./main -lrt -lm -lpthread -ldl && ./main"),
        ..COMMANDS_ONLY
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
        exec: &[
            Rule("target/debug", CARGO_OUTPUT),
            Rule("target/release", CARGO_OUTPUT),
            Rule("main", "./main"),
        ],
        query: file("rs", "{} -o ./main {file} && ./main"),
        ..COMMANDS_ONLY
    },
    Runtime {
        names: &["java"],
        program: "java",
        build: &[Rule(".", "javac -d . $(find . -name '*.java')")],
        exec: &[Rule("main/Main.class", "{} main.Main"), Rule("Main.class", "{} Main")],
        query: file("java", JAVA_QUERY),
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
        // Moves compiled packages to the home.
        preparation: Some("/usr/local/bin/movecompiled.sh"),
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
        query: Query::File { extension: "php", preamble: "<?php ", command: "{} {file}" },
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
