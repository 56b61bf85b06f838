//! An NVIDIA GPU: one stream of our own, no events but where times are asked for, plain
//! allocations.

use std::collections::HashMap;
use std::ffi::{CString, c_void};

use cudarc::driver::{DriverError, result, sys};

use super::blas::{BLAS_WORKSPACE, Blas};
use super::cards::{capability, count, failed};
use super::compile::Compiler;
use super::driver::{Address, Command, Driver, Function, Graph, Source};
use super::elapsed::milliseconds;
use super::libraries;
use super::nvrtc::Capability;
use crate::error::{Error, Result};

/// Allocations are multiples of this, as they begin at multiples of it.
const ALIGNMENT: usize = 256;

/// A GPU with everything that this process keeps on it.
pub struct Gpu {
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// There from the end of [`Gpu::new`] on.
    blas: Option<Blas>,
    description: String,
    compiler: Compiler,
    /// Whether the card reads ordinary memory by itself (Grace Hopper), where others are given a
    /// copy in pinned memory.
    reads_ordinary_memory: bool,
    /// Whether it has them and `METATAPE_NO_WGMMA` is not set.
    wgmma: bool,
    resident: usize,
    /// Dynamic and static shared memory that a block may have together.
    shared_limit: i32,
    modules: HashMap<String, sys::CUmodule>,
    /// By file and name: the files of the three precisions have kernels of the same names.
    functions: Vec<(String, String, sys::CUfunction)>,
    /// By number; `None` where one was released.
    graphs: Vec<Option<sys::CUgraphExec>>,
    /// With their bytes.
    allocations: HashMap<Address, usize>,
}

// SAFETY: the handles are not bound to a thread; every call that needs the context makes it the
// thread's own first.
unsafe impl Send for Gpu {}

impl Gpu {
    /// The GPU of this number, from 0.
    ///
    /// # Errors
    /// [`Error::Device`] for a library that is not there (NVRTC only where the cache of kernels has
    /// not everything), a GPU that is not there or too old, and if the driver refuses.
    pub fn new(number: usize) -> Result<Gpu> {
        libraries::load_all()?;
        let count = count()?;
        let ordinal = i32::try_from(number).ok().filter(|n| *n < count).ok_or_else(|| {
            Error::Device(format!(
                "there is no GPU number {number}: the driver shows {count}, counted from 0"
            ))
        })?;
        let device = result::device::get(ordinal).map_err(failed("be opened"))?;
        let name = result::device::get_name(device).map_err(failed("tell its name"))?;
        let card = capability(device).map_err(failed("tell its compute capability"))?;
        if card.0 < 80 {
            return Err(Error::Device(format!(
                "cuda:{number} {name} has compute capability {}.{}, and the kernels need 8.0 or more (Ampere and later); use \
                 --device cpu",
                card.0 / 10,
                card.0 % 10
            )));
        }
        let compiler = Compiler::new(card)?;
        // SAFETY: `device` was given by the driver; its context stays as long as the process.
        let (context, shared_limit, direct, processors) = unsafe {
            use sys::CUdevice_attribute::{
                CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN as SHARED,
                CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as PROCESSORS,
                CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES as DIRECT,
            };
            let ask = |what| result::device::get_attribute(device, what).map_err(failed("tell its limits"));
            let (shared, direct, processors) = (ask(SHARED)?, ask(DIRECT)?, ask(PROCESSORS)?);
            let context = result::primary_ctx::retain(device).map_err(failed("be opened"))?;
            (context, shared, direct, processors)
        };
        let mut gpu = Gpu {
            context,
            stream: std::ptr::null_mut(),
            blas: None,
            description: format!("cuda:{number} {name}"),
            compiler,
            reads_ordinary_memory: direct != 0,
            wgmma: card == Capability(90) && std::env::var_os("METATAPE_NO_WGMMA").is_none(),
            resident: match std::env::var_os("METATAPE_NO_GATES") {
                Some(_) => 0,
                None => processors as usize,
            },
            shared_limit,
            modules: HashMap::new(),
            functions: Vec::new(),
            graphs: Vec::new(),
            allocations: HashMap::new(),
        };
        gpu.bind()?;
        gpu.stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(failed("make a stream"))?;
        let workspace = gpu.allocate(BLAS_WORKSPACE)?;
        gpu.blas = Some(Blas::new(gpu.stream, workspace)?);
        Ok(gpu)
    }

    /// Makes the context this thread's own.
    fn bind(&self) -> Result<()> {
        // SAFETY: the context stays as long as the process.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed("be used from this thread"))
    }

    fn module(&mut self, source: &Source) -> Result<sys::CUmodule> {
        if let Some(module) = self.modules.get(&*source.name) {
            return Ok(*module);
        }
        let module = self.compiler.with_image(source, |image| {
            // SAFETY: a whole image as NVRTC made it (the cache gives no other): machine code,
            // which has its length in it, or text that ends with a zero byte.
            unsafe { result::module::load_data(image.as_ptr().cast()) }
                .map_err(failed(&format!("load kernels/{}", source.name)))
        })?;
        self.modules.insert(source.name.to_string(), module);
        Ok(module)
    }

    fn launch(
        &self,
        function: Function,
        grid: [u32; 3],
        block: u32,
        shared: u32,
        params: &[u8],
    ) -> Result<()> {
        let (file, name, function) = &self.functions[function.0];
        let mut params = [params.as_ptr().cast_mut().cast::<c_void>()];
        let [x, y, z] = grid;
        // SAFETY: the kernel takes one struct by value, whose bytes these are; the driver copies
        // them before it returns. The addresses in it are allocations of this driver.
        unsafe {
            result::launch_kernel(*function, (x, y, z), (block, 1, 1), shared, self.stream, &mut params)
        }
        .map_err(failed(&format!("launch {name} of kernels/{file} in {x}×{y}×{z} blocks of {block} threads")))
    }

    /// A new event, recorded now.
    fn mark(&self) -> Result<sys::CUevent> {
        let event =
            result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(failed("make an event"))?;
        // SAFETY: event and stream are of this context.
        unsafe { result::event::record(event, self.stream) }.map_err(failed("record an event"))?;
        Ok(event)
    }

    fn command(&self, command: &Command) -> Result<()> {
        match command {
            Command::Launch { function, grid, block, shared, params } => {
                self.launch(*function, *grid, *block, *shared, params)
            }
            Command::Gemm(gemm) => self.blas.as_ref().map_or(Ok(()), |blas| blas.gemm(gemm)),
            // SAFETY: the bytes are in one of this driver's allocations.
            Command::Clear { to, bytes } => unsafe { result::memset_d8_async(*to, 0, *bytes, self.stream) }
                .map_err(failed("clear memory")),
            // SAFETY: as above, both times.
            Command::Copy { from, to, bytes } => {
                unsafe { result::memcpy_dtod_async(*to, *from, *bytes, self.stream) }
                    .map_err(failed("copy memory"))
            }
        }
    }
}

impl Driver for Gpu {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn wgmma(&self) -> bool {
        self.wgmma
    }

    fn resident(&self) -> usize {
        self.resident
    }

    fn allocate(&mut self, bytes: usize) -> Result<Address> {
        self.bind()?;
        let bytes = bytes.max(1).next_multiple_of(ALIGNMENT);
        // SAFETY: nothing is read before it is written: the backend clears what begins as zeros.
        let address = match unsafe { result::malloc_sync(bytes) } {
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let free = result::mem_get_info().map_or(0, |(free, _)| free);
                return Err(Error::Device(format!(
                    "{} has no room for {} MiB more, {} MiB are free; take a smaller --batch or a smaller model",
                    self.description,
                    bytes.div_ceil(1 << 20),
                    free >> 20
                )));
            }
            answer => answer.map_err(failed("give memory"))?,
        };
        self.allocations.insert(address, bytes);
        Ok(address)
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        self.bind()?;
        // SAFETY: the bytes fit where they go (the backend asked for as many), and are ordinary
        // memory, of which the driver takes a copy before it returns; where it need not, the end is
        // waited for.
        unsafe { result::memcpy_htod_async(to, bytes, self.stream) }.map_err(failed("take data"))?;
        if self.reads_ordinary_memory { self.synchronise() } else { Ok(()) }
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.bind()?;
        // SAFETY: as many bytes lie there; `bytes` outlives the copy, which is waited for.
        unsafe { result::memcpy_dtoh_async(bytes, from, self.stream) }.map_err(failed("give data"))?;
        self.synchronise()
    }

    fn function(&mut self, source: &Source, name: &str) -> Result<Function> {
        if let Some(at) = self.functions.iter().position(|f| f.0 == source.name && f.1 == name) {
            return Ok(Function(at));
        }
        self.bind()?;
        let module = self.module(source)?;
        let symbol =
            CString::new(name).map_err(|_| Error::Device(format!("`{name}` is no kernel's name")))?;
        let what = format!("find {name} in kernels/{}", source.name);
        use sys::CUfunction_attribute_enum::{
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as DYNAMIC,
            CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES as STATIC,
        };
        // SAFETY: the module stays loaded as long as this, and the function is what it gives.
        let function = unsafe {
            let function = result::module::get_function(module, symbol).map_err(failed(&what))?;
            let fixed = result::function::get_function_attribute(function, STATIC);
            let fixed = fixed.map_err(failed("tell a kernel's shared memory"))?;
            result::function::set_function_attribute(function, DYNAMIC, self.shared_limit - fixed)
                .map_err(failed("give a kernel all shared memory"))?;
            function
        };
        self.functions.push((source.name.to_string(), name.to_owned(), function));
        Ok(Function(self.functions.len() - 1))
    }

    fn prepare(&mut self, sources: &[&Source]) -> Result<()> {
        self.compiler.fill(sources)
    }

    fn run(&mut self, command: &Command) -> Result<()> {
        self.bind()?;
        self.command(command)
    }

    fn allocated(&self) -> usize {
        self.allocations.values().sum()
    }

    fn time(&mut self, commands: &[Command], times: usize) -> Result<f64> {
        // Launched one by one, a short kernel would be timed with the host's work on the next one.
        let all: Vec<Command> = (0..times).flat_map(|_| commands.iter().cloned()).collect();
        let graph = self.capture(&all)?;
        self.replay(graph)?;
        let from = self.mark()?;
        self.replay(graph)?;
        let to = self.mark()?;
        self.synchronise()?;
        let seconds = milliseconds(from, to).map(|ms| f64::from(ms) * 1e-3 / times as f64);
        for mark in [from, to] {
            // SAFETY: made above, destroyed once.
            unsafe { result::event::destroy(mark) }.map_err(failed("remove an event"))?;
        }
        if let Some(Some(graph)) = self.graphs.pop() {
            // SAFETY: the last graph is the one made above, nobody else has its number, and it has
            // run.
            unsafe { result::graph::exec_destroy(graph) }.map_err(failed("remove a graph"))?;
        }
        seconds
    }

    fn capture(&mut self, commands: &[Command]) -> Result<Graph> {
        self.bind()?;
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is ours.
        unsafe { result::stream::begin_capture(self.stream, mode) }.map_err(failed("begin a graph"))?;
        let recorded = commands.iter().try_for_each(|c| self.command(c));
        // SAFETY: the stream is ours; the graph is destroyed once, when what is run has been made
        // of it. A capture that went wrong is ended, too: the stream could not be used otherwise.
        let graph = unsafe {
            let graph = result::stream::end_capture(self.stream).map_err(failed("end a graph"));
            recorded?;
            let graph = graph?;
            let made = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            result::graph::destroy(graph).map_err(failed("remove a graph"))?;
            made.map_err(failed("make a graph ready"))?
        };
        self.graphs.push(Some(graph));
        Ok(Graph(self.graphs.len() - 1))
    }

    fn replay(&mut self, graph: Graph) -> Result<()> {
        self.bind()?;
        let released = || Error::Device("a graph that was released cannot run".into());
        let graph = self.graphs[graph.0].ok_or_else(released)?;
        // SAFETY: graph and stream are ours; the addresses in the graph are allocations that are
        // released with it, not before.
        unsafe { result::graph::launch(graph, self.stream) }.map_err(failed("run a graph"))
    }

    fn synchronise(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream is ours.
        unsafe { result::stream::synchronize(self.stream) }.map_err(failed("finish its work"))
    }

    fn release(&mut self, memory: &[Address], graphs: &[Graph]) -> Result<()> {
        self.synchronise()?;
        for graph in graphs.iter().filter_map(|g| self.graphs[g.0].take()) {
            // SAFETY: made by this, taken out of the list, and it has run.
            unsafe { result::graph::exec_destroy(graph) }.map_err(failed("remove a graph"))?;
        }
        for address in memory.iter().filter_map(|m| self.allocations.remove_entry(m)) {
            // SAFETY: allocated by this, taken out of the list, and all work on it is done.
            unsafe { result::free_sync(address.0) }.map_err(failed("take memory back"))?;
        }
        Ok(())
    }
}

impl Drop for Gpu {
    /// Gives everything back but the device's context, which goes with the process: to make it anew
    /// takes a driver longer than anything else here, and cuBLAS keeps things of its own in it.
    /// What the driver says of it changes nothing any more.
    fn drop(&mut self) {
        let _ = self.bind();
        let _ = self.synchronise();
        self.blas = None;
        // SAFETY: all handles were made by this and are used by nobody else; each is given back
        // once.
        unsafe {
            for graph in self.graphs.drain(..).flatten() {
                let _ = result::graph::exec_destroy(graph);
            }
            for (address, _) in self.allocations.drain() {
                let _ = result::free_sync(address);
            }
            for (_, module) in self.modules.drain() {
                let _ = result::module::unload(module);
            }
            if !self.stream.is_null() {
                let _ = result::stream::destroy(self.stream);
            }
        }
    }
}
