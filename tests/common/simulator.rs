//! A driver that runs `kernels/*.cu` on the CPU: compiled as C++ against
//! `tests/simulator/cuda_sim.h`, which see.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::Mutex;

use half::bf16;
use libloading::Library;
use metatape::backend::cuda::driver::{Address, Command, Driver, Function, Gemm, Graph, Source, Width};
use metatape::{Error, Result};

use super::rounded::to_tf32;

/// Twin of `metatape_sim::Allocation`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Allocation {
    address: u64,
    bytes: u64,
}

/// Twin of `metatape_sim::Launch`.
#[repr(C)]
struct Launch {
    grid: [u32; 3],
    block: u32,
    shared_bytes: u32,
    params_bytes: u32,
    seed: u64,
    params: *const c_void,
    allocations: *const Allocation,
    allocation_count: u64,
}

type Entry = unsafe extern "C" fn(*const Launch) -> *const c_char;

const ALIGNMENT: usize = 256;

/// A machine of which nothing is real but the kernels.
pub struct Simulator {
    /// By address.
    memory: Vec<Allocation>,
    /// By file and name.
    functions: Vec<(String, String, Entry)>,
    graphs: Vec<Vec<Command>>,
    /// Of the order in which threads run; another one for every launch.
    seed: u64,
}

impl Simulator {
    /// `seed`: of the order in which threads run.
    pub fn new(seed: u64) -> Simulator {
        let seed = seed << 32;
        Simulator { memory: Vec::new(), functions: Vec::new(), graphs: Vec::new(), seed }
    }

    /// The memory from an address on, if one allocation holds all of it.
    fn range(&self, from: Address, bytes: usize, what: &str) -> Result<*mut u8> {
        let after = self.memory.partition_point(|a| a.address <= from);
        let inside = after.checked_sub(1).map(|i| self.memory[i]);
        match inside.filter(|a| from + bytes as u64 <= a.address + a.bytes) {
            Some(_) => Ok(from as *mut u8),
            None => {
                Err(Error::Device(format!("{what}: {bytes} bytes from {from:#x} are not in one allocation")))
            }
        }
    }

    fn launch(
        &mut self,
        function: Function,
        grid: [u32; 3],
        block: u32,
        shared: u32,
        params: &[u8],
    ) -> Result<()> {
        self.seed += 1;
        let launch = Launch {
            grid,
            block,
            shared_bytes: shared,
            params_bytes: params.len() as u32,
            seed: self.seed,
            params: params.as_ptr().cast(),
            allocations: self.memory.as_ptr(),
            allocation_count: self.memory.len() as u64,
        };
        // SAFETY: the function is an entry of a library compiled for this struct; all that it
        // points to outlives the call. The kernel's own accesses are checked against the
        // allocations.
        let error = unsafe { (self.functions[function.0].2)(&raw const launch) };
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: a text that ends with a zero and stays until the thread's next launch.
        let text = unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned();
        Err(Error::Device(text))
    }

    /// In double precision, rounded once.
    fn gemm(&self, g: &Gemm) -> Result<()> {
        let what = format!("matrix product {g:?}");
        let a = self.numbers(g.a, g.m * g.k, g.factors, &what)?;
        let b = self.numbers(g.b, g.k * g.n, g.factors, &what)?;
        let mut c = self.numbers(g.c, g.m * g.n, g.product, &what)?;
        if g.factors == Width::F32 && g.product == Width::Bf16 {
            return Err(Error::Device(format!("{what}: cuBLAS has no product in bf16 of factors in f32")));
        }
        let rounded = |v: f64| if g.tf32 && g.factors == Width::F32 { to_tf32(v) } else { v };
        for i in 0..g.m {
            for j in 0..g.n {
                let mut sum = if g.accumulate { c[i * g.n + j] } else { 0.0 };
                for l in 0..g.k {
                    let x = a[if g.a_transposed { l * g.m + i } else { i * g.k + l }];
                    let y = b[if g.b_transposed { j * g.k + l } else { l * g.n + j }];
                    sum += rounded(x) * rounded(y);
                }
                c[i * g.n + j] = sum;
            }
        }
        let to = self.range(g.c, c.len() * g.product.bytes(), &what)?;
        for (i, v) in c.into_iter().enumerate() {
            // SAFETY: the range was checked to hold all entries; addresses are multiples of the
            // entries' size.
            unsafe {
                match g.product {
                    Width::F32 => to.cast::<f32>().add(i).write(v as f32),
                    Width::Bf16 => to.cast::<bf16>().add(i).write(bf16::from_f64(v)),
                }
            }
        }
        Ok(())
    }

    fn numbers(&self, at: Address, count: usize, width: Width, what: &str) -> Result<Vec<f64>> {
        let from = self.range(at, count * width.bytes(), what)?;
        // SAFETY: the range was checked to hold all entries; addresses are multiples of the
        // entries' size.
        let read = |i| unsafe {
            match width {
                Width::F32 => f64::from(from.cast::<f32>().add(i).read()),
                Width::Bf16 => from.cast::<bf16>().add(i).read().to_f64(),
            }
        };
        Ok((0..count).map(read).collect())
    }
}

impl Driver for Simulator {
    fn describe(&self) -> String {
        "simulator".into()
    }

    fn wgmma(&self) -> bool {
        true
    }

    fn resident(&self) -> usize {
        132
    }

    fn allocate(&mut self, bytes: usize) -> Result<Address> {
        let bytes = bytes.max(1);
        let layout = Layout::from_size_align(bytes, ALIGNMENT).expect("a size that memory can have");
        // SAFETY: the layout has at least one byte.
        let address = unsafe { alloc(layout) };
        assert!(!address.is_null(), "no memory for {bytes} bytes");
        // SAFETY: allocated above with this length. Every f32 and bf16 is a NaN, so that what is
        // read before it is written shows.
        unsafe { address.write_bytes(0xff, bytes) };
        let address = address as u64;
        let at = self.memory.partition_point(|a| a.address < address);
        self.memory.insert(at, Allocation { address, bytes: bytes as u64 });
        Ok(address)
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        let to = self.range(to, bytes.len(), "upload")?;
        // SAFETY: the range is checked.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        let from = self.range(from, bytes.len(), "download")?;
        // SAFETY: the range is checked.
        unsafe { from.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn function(&mut self, source: &Source, name: &str) -> Result<Function> {
        if let Some(at) = self.functions.iter().position(|f| f.0 == source.name && f.1 == name) {
            return Ok(Function(at));
        }
        let library = library(source);
        // SAFETY: every kernel has an entry of this type (`KERNEL` in common.cuh).
        let entry = unsafe { library.get::<Entry>(format!("sim_{name}\0").as_bytes()) };
        let entry =
            entry.map_err(|e| Error::Device(format!("kernels/{} has no kernel {name}: {e}", source.name)))?;
        self.functions.push((source.name.to_string(), name.to_owned(), *entry));
        Ok(Function(self.functions.len() - 1))
    }

    fn prepare(&mut self, sources: &[&Source]) -> Result<()> {
        libraries(sources);
        Ok(())
    }

    fn run(&mut self, command: &Command) -> Result<()> {
        match command {
            Command::Launch { function, grid, block, shared, params } => {
                self.launch(*function, *grid, *block, *shared, params)
            }
            Command::Gemm(gemm) => self.gemm(gemm),
            Command::Clear { to, bytes } => {
                // SAFETY: the range is checked.
                unsafe { self.range(*to, *bytes, "clear")?.write_bytes(0, *bytes) };
                Ok(())
            }
            Command::Copy { from, to, bytes } => {
                if from.abs_diff(*to) < *bytes as u64 {
                    return Err(Error::Device(format!(
                        "copy of {bytes} bytes from {from:#x} onto {to:#x}: they overlap"
                    )));
                }
                let (from, to) = (self.range(*from, *bytes, "copy")?, self.range(*to, *bytes, "copy")?);
                // SAFETY: both ranges are checked, and do not overlap.
                unsafe { from.copy_to_nonoverlapping(to, *bytes) };
                Ok(())
            }
        }
    }

    fn allocated(&self) -> usize {
        self.memory.iter().map(|a| a.bytes as usize).sum()
    }

    fn time(&mut self, commands: &[Command], times: usize) -> Result<f64> {
        let start = std::time::Instant::now();
        (0..times).try_for_each(|_| commands.iter().try_for_each(|c| self.run(c)))?;
        Ok(start.elapsed().as_secs_f64() / times as f64)
    }

    fn capture(&mut self, commands: &[Command]) -> Result<Graph> {
        self.graphs.push(commands.to_vec());
        Ok(Graph(self.graphs.len() - 1))
    }

    fn replay(&mut self, graph: Graph) -> Result<()> {
        let commands = self.graphs[graph.0].clone();
        commands.iter().try_for_each(|c| self.run(c))
    }

    fn synchronise(&self) -> Result<()> {
        Ok(())
    }

    fn release(&mut self, memory: &[Address], graphs: &[Graph]) -> Result<()> {
        graphs.iter().for_each(|graph| self.graphs[graph.0].clear());
        for allocation in self.memory.extract_if(.., |a| memory.contains(&a.address)) {
            free(allocation);
        }
        Ok(())
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.memory.drain(..).for_each(free);
    }
}

fn free(Allocation { address, bytes }: Allocation) {
    let layout = Layout::from_size_align(bytes as usize, ALIGNMENT).expect("as it was allocated");
    // SAFETY: allocated by `allocate` with this layout and taken out of its list: freed once.
    unsafe { dealloc(address as *mut u8, layout) };
}

/// A file's shared object, compiled once for its content.
fn library(source: &Source) -> &'static Library {
    libraries(&[source])[0]
}

/// Those of several files; what is not there yet is compiled as one.
fn libraries(sources: &[&Source]) -> Vec<&'static Library> {
    static LOADED: Mutex<Option<HashMap<String, &'static Library>>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let loaded = loaded.get_or_insert_default();
    let mut missing: Vec<&Source> = sources.to_vec();
    missing.retain(|s| !loaded.contains_key(&*s.name));
    missing.sort_by_key(|s| &s.name);
    missing.dedup();
    if !missing.is_empty() {
        let object = compile(&missing);
        // SAFETY: compiled from this repository's own sources; it has no initialisers that do
        // anything.
        let library = unsafe { Library::new(&object) };
        // It stays as long as the process: kernels may be called from any thread.
        let library: &'static Library =
            Box::leak(Box::new(library.unwrap_or_else(|e| panic!("{}: {e}", object.display()))));
        loaded.extend(missing.iter().map(|s| (s.name.to_string(), library)));
    }
    sources.iter().map(|s| loaded[&*s.name]).collect()
}

fn compile(sources: &[&Source]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (kernels, simulator) = (root.join("kernels"), root.join("tests/simulator"));
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let text: String = sources.iter().map(|s| &*s.text).collect();
    let mut hash = DefaultHasher::new();
    compiler.hash(&mut hash);
    for folder in [&kernels, &simulator] {
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
        files.retain(|f| f.extension().is_some_and(|e| ["cuh", "h", "cpp"].iter().any(|x| e == *x)));
        files.sort();
        files.iter().for_each(|f| std::fs::read(f).unwrap().hash(&mut hash));
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("simulator");
    std::fs::create_dir_all(&folder).unwrap();
    // The simulator itself is the same for all kernels.
    let runtime = folder.join(format!("simulator-{:016x}.o", hash.finish()));
    text.hash(&mut hash);
    let file = &*sources[0].name;
    let object = folder.join(format!("{file}-{:016x}.so", hash.finish()));
    if object.exists() {
        return object;
    }
    // Several test programs may be at it at once: each works in a folder of its own.
    let work = tempfile::tempdir_in(&folder).unwrap();
    let hooks = ["-fsanitize=thread", "-DMETATAPE_SIMULATOR", "-O1"];
    let version = Process::new(&compiler).arg("--version").output();
    let version = version
        .unwrap_or_else(|e| panic!("the simulator needs a C++ compiler; `{compiler}` does not run: {e}"));
    // Where functions begin and end is of no interest, and what belongs to a thread is to be found
    // fast; clang does not know the options.
    let gcc = !String::from_utf8_lossy(&version.stdout).contains("clang");
    let quiet: &[&str] = if gcc { &["--param", "tsan-instrument-func-entry-exit=0"] } else { &[] };
    let fast: &[&str] = if gcc && cfg!(target_arch = "x86_64") { &["-mtls-dialect=gnu2"] } else { &[] };
    let base = || {
        let mut process = Process::new(&compiler);
        process.args(["-std=c++20", "-fPIC"]).args(fast).current_dir(work.path());
        process
    };
    let hooked = || {
        let mut process = base();
        process.args(hooks).args(quiet).arg("-I").arg(&kernels);
        process
    };
    // So is what it declares: read once by the compiler, and included as it then stands.
    let header = runtime.with_extension("h");
    if !runtime.exists() {
        run(base().args(["-O3", "-c", "-o", "simulator.o"]).arg(simulator.join("cuda_sim.cpp")));
        std::fs::copy(simulator.join("cuda_sim.h"), work.path().join("header.h")).unwrap();
        std::fs::rename(work.path().join("header.h"), &header).unwrap();
        run(hooked().args(["-w", "-x", "c++-header", "-o", "header.gch"]).arg(&header));
        std::fs::rename(work.path().join("header.gch"), header.with_extension("h.gch")).unwrap();
        std::fs::rename(work.path().join("simulator.o"), &runtime).unwrap();
    }
    let mut kernel = hooked();
    std::fs::write(work.path().join(file), text).unwrap();
    // `benches/gpu/pack.sh` compiles for a card what the tests have written.
    for source in sources {
        std::fs::write(folder.join(&*source.name), &*source.text).unwrap();
    }
    kernel.arg("-include").arg(&header);
    run(kernel.args(["-c", "-o", "kernel.o", "-x", "c++"]).arg(file));
    run(base().args(["-shared", "-Wl,-Bsymbolic", "-o", "all.so", "kernel.o"]).arg(&runtime));
    std::fs::rename(work.path().join("all.so"), &object).unwrap();
    object
}

fn run(process: &mut Process) {
    let answer = process.output().unwrap_or_else(|e| panic!("{process:?}: {e}"));
    assert!(answer.status.success(), "{process:?}:\n{}", String::from_utf8_lossy(&answer.stderr));
}
