//! `cargo xtask npm`: from Rust and TypeScript to the package as it is published, in npm/.
//!
//! js/generated/ gets the bindings, npm/dist/ the package: `src/` compiled from js/src/ and `generated/` beside it, so
//! that the relative imports of the sources hold in the package too.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use xshell::{Shell, cmd};

use crate::tools::{announce, cargo, node, wasm_target};

/// What every browser of the last years can run and rustc turns on by default; the optimiser may use it too.
const WASM_FEATURES: [&str; 6] = [
    "--enable-bulk-memory",
    "--enable-multivalue",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
];

/// Builds the package and prints its sizes.
pub(crate) fn run(shell: &Shell) -> Result<()> {
    package(shell)?;
    print_sizes(shell)
}

/// Builds the package into npm/dist/.
pub(crate) fn package(shell: &Shell) -> Result<()> {
    bindings(shell)?;
    let tsc = node::npm_program(shell, "tsc")?;
    announce("Compiling the TypeScript SDK");
    shell.remove_path("npm/dist")?;
    // With their sources inside, maps work where the package is installed, which has no js/.
    cmd!(shell, "{tsc} --project js --rootDir js/src --outDir npm/dist/src --inlineSources").run()?;
    shell.create_dir("npm/dist/generated")?;
    for file in shell.read_dir("js/generated")? {
        shell.copy_file(&file, "npm/dist/generated")?;
    }
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        shell.copy_file(licence, "npm")?;
    }
    Ok(())
}

/// Compiles the core to Wasm and generates its bindings into js/generated/.
pub(crate) fn bindings(shell: &Shell) -> Result<()> {
    wasm_target::wasm_target(shell)?;
    let wasm_bindgen = cargo::wasm_bindgen(shell)?;
    let wasm_opt = node::npm_program(shell, "wasm-opt")?;
    announce("Compiling the core to Wasm");
    let target = "wasm32-unknown-unknown";
    let nameless_paths = without_machine_paths(shell)?;
    cmd!(shell, "cargo build --locked --package peerloom-wasm --lib --target {target} --profile wasm")
        .args(["--config", &nameless_paths])
        .run()?;
    let compiled = target_folder(shell)?.join(target).join("wasm/peerloom_wasm.wasm");
    let optimised = shell.current_dir().join("js/generated/peerloom_wasm_bg.wasm");
    if newer(&optimised, &compiled) && newer(&optimised, &wasm_bindgen) {
        return Ok(());
    }
    shell.remove_path("js/generated")?;
    cmd!(shell, "{wasm_bindgen} {compiled} --target web --out-dir js/generated --out-name peerloom_wasm")
        .run()?;
    // Optimised beside its place and moved there last: an interrupted run leaves nothing that looks finished.
    let raw = optimised.with_extension("raw.wasm");
    fs::rename(&optimised, &raw)?;
    let partial = optimised.with_extension("partial");
    cmd!(shell, "{wasm_opt} -Os {WASM_FEATURES...} --strip-debug --strip-producers --strip-target-features")
        .args([&raw, Path::new("-o"), &partial])
        .run()?;
    fs::remove_file(&raw)?;
    fs::rename(&partial, &optimised)?;
    Ok(())
}

/// The folders of TypeScript that use the package: the examples, and the tests of js/ if they are a project of their own.
pub(crate) fn users_in_typescript(shell: &Shell) -> Result<Vec<PathBuf>> {
    let mut folders = shell.read_dir("examples")?;
    folders.push(shell.current_dir().join("js/tests"));
    folders.retain(|folder| folder.join("tsconfig.json").is_file());
    Ok(folders)
}

/// Where cargo puts what it builds.
pub(crate) fn target_folder(shell: &Shell) -> Result<PathBuf> {
    let metadata = cmd!(shell, "cargo metadata --format-version 1 --no-deps").quiet().read()?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let folder =
        metadata.get("target_directory").and_then(Value::as_str).context("cargo names no target folder")?;
    Ok(folder.into())
}

/// Compiler flags that keep the folders of this machine out of the messages of panics: the package says the same wherever it
/// was built, and nothing of who built it.
fn without_machine_paths(shell: &Shell) -> Result<String> {
    let cargo_home = match shell.var_os("CARGO_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(shell.var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    let mut folders = vec![shell.current_dir()];
    let registries = cargo_home.join("registry/src");
    if registries.is_dir() {
        folders.extend(shell.read_dir(&registries)?);
    }
    let flags: Vec<String> =
        folders.iter().map(|folder| format!("--remap-path-prefix={}/=", folder.display())).collect();
    Ok(format!("target.wasm32-unknown-unknown.rustflags={}", json!(flags)))
}

fn newer(file: &Path, than: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    matches!((changed(file), changed(than)), (Some(file), Some(than)) if file > than)
}

/// What a page downloads: the SDK bundled and minified as an application's bundler would, and the Wasm.
fn print_sizes(shell: &Shell) -> Result<()> {
    let rolldown = node::npm_program(shell, "rolldown")?;
    let scratch = shell.create_temp_dir()?;
    let bundle = scratch.path().join("peerloom.js");
    let entry = shell.current_dir().join("npm/dist/src/index.js");
    ensure!(entry.is_file(), "the package has no {}", entry.display());
    cmd!(shell, "{rolldown} {entry} --format esm --minify --file {bundle}").quiet().ignore_stdout().run()?;

    println!("{:<22} {:>10} {:>10} {:>10}", "bytes", "minified", "gzip", "brotli");
    let mut total = [0; 3];
    for (name, file) in [("JavaScript", bundle), ("Wasm", "npm/dist/generated/peerloom_wasm_bg.wasm".into())]
    {
        let sizes = compressed_sizes(shell, &file)?;
        print_size_row(name, sizes);
        for (sum, size) in total.iter_mut().zip(sizes) {
            *sum += size;
        }
    }
    print_size_row("together", total);
    Ok(())
}

fn print_size_row(name: &str, [raw, gzip, brotli]: [u64; 3]) {
    println!("{name:<22} {raw:>10} {gzip:>10} {brotli:>10}");
}

/// The size of `file` as it is, and as a web server sends it: gzip at level 9, brotli at 11. Node has both built in.
pub(crate) fn compressed_sizes(shell: &Shell, file: &Path) -> Result<[u64; 3]> {
    let script = "const zlib = require('zlib'); const data = require('fs').readFileSync(process.argv[1]); \
                  console.log(data.length, zlib.gzipSync(data, { level: 9 }).length, zlib.brotliCompressSync(data).length)";
    let node = node::node(shell)?;
    let printed = cmd!(shell, "{node} -e {script} {file}").quiet().read()?;
    let sizes: Vec<u64> = printed.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    sizes.try_into().map_err(|_| anyhow::anyhow!("Node printed {printed:?}, not three sizes"))
}
