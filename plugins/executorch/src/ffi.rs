//! The C interface of the shim library (`shim/pajamas_executorch.h`), behind safe types.
//!
//! The shim is the only library that knows ExecuTorch's C++ types. It is loaded at run time, so that the plugin itself
//! loads where it is missing, and is never closed.
#![expect(unsafe_code, reason = "ExecuTorch is reached through a C interface, loaded at run time")]

use std::ffi::{CStr, c_char, c_void};
use std::panic::catch_unwind;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::program::DIMS_MAX;

/// `PAJAMAS_ET_INTERFACE` of the header that these declarations repeat.
const INTERFACE: u32 = 1;
/// The status of success.
const OK: u32 = 0;

/// `pajamas_et_tensor`.
#[repr(C)]
struct RawTensor {
    scalar_type: i8,
    dims: u32,
    sizes: [i32; DIMS_MAX],
    dim_order: [u8; DIMS_MAX],
    data: *const c_void,
    bytes: usize,
}

#[repr(C)]
struct RawProgram {
    _private: [u8; 0],
}

#[repr(C)]
struct RawMethod {
    _private: [u8; 0],
}

type RawLog = unsafe extern "C" fn(c_char, *const c_char, usize, *const c_char, usize);

/// The shim's functions, by value.
struct Functions {
    version: unsafe extern "C" fn() -> *const c_char,
    start: unsafe extern "C" fn(RawLog) -> u32,
    status_name: unsafe extern "C" fn(u32) -> *const c_char,
    backends: unsafe extern "C" fn() -> usize,
    backend: unsafe extern "C" fn(usize) -> *const c_char,
    set_threads: unsafe extern "C" fn(u32) -> u32,
    program_open: unsafe extern "C" fn(*const c_char, *mut *mut RawProgram) -> u32,
    program_close: unsafe extern "C" fn(*mut RawProgram),
    method_open: unsafe extern "C" fn(*const RawProgram, *const c_char, *mut *mut RawMethod) -> u32,
    method_close: unsafe extern "C" fn(*mut RawMethod),
    method_set_input: unsafe extern "C" fn(*mut RawMethod, usize, *const RawTensor) -> u32,
    method_run: unsafe extern "C" fn(*mut RawMethod) -> u32,
    method_output: unsafe extern "C" fn(*const RawMethod, usize, *mut RawTensor) -> u32,
}

/// A failed call: the code of ExecuTorch's `Error` and its name, such as `OperatorMissing`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: u32,
    pub(crate) name: String,
}

/// The runtime, started.
pub(crate) struct Runtime {
    functions: Functions,
}

/// Loads a library that registers kernels or a backend with the runtime, for ever.
pub(crate) fn load_companion(file: &Path) -> Result<(), String> {
    // SAFETY: its initialisers register functions with the runtime that is loaded; whoever puts a library into the plugin's
    // folder trusts it with the process.
    let library = unsafe { libloading::Library::new(file) }.map_err(|error| reason(&error))?;
    std::mem::forget(library);
    Ok(())
}

/// What the loader says, which libloading has as the cause of its own words.
fn reason(error: &libloading::Error) -> String {
    let cause = std::error::Error::source(error);
    cause.map_or_else(|| error.to_string(), ToString::to_string)
}

impl Runtime {
    /// Loads the shim, and with it ExecuTorch's core, and starts it. To be called once in a process.
    ///
    /// # Errors
    /// It is no library for this machine, of another version of the interface, or a library that it needs is missing.
    pub(crate) fn load(shim: &Path) -> Result<Self, String> {
        // SAFETY: the initialisers of the shim and of ExecuTorch's core only fill tables.
        let library = unsafe { libloading::Library::new(shim) }.map_err(|error| reason(&error))?;
        let missing = |error: libloading::Error| reason(&error);
        // SAFETY: the function has had this type in every version of the header.
        let interface = unsafe {
            library
                .get::<unsafe extern "C" fn() -> u32>(c"pajamas_et_interface")
                .map(|interface| interface())
                .map_err(missing)?
        };
        if interface != INTERFACE {
            return Err(format!("it has version {interface} of the interface, expected {INTERFACE}"));
        }
        // SAFETY: the types are those of the header of this version.
        let functions = unsafe {
            Functions {
                version: *library.get(c"pajamas_et_version").map_err(missing)?,
                start: *library.get(c"pajamas_et_start").map_err(missing)?,
                status_name: *library.get(c"pajamas_et_status_name").map_err(missing)?,
                backends: *library.get(c"pajamas_et_backends").map_err(missing)?,
                backend: *library.get(c"pajamas_et_backend").map_err(missing)?,
                set_threads: *library.get(c"pajamas_et_set_threads").map_err(missing)?,
                program_open: *library.get(c"pajamas_et_program_open").map_err(missing)?,
                program_close: *library.get(c"pajamas_et_program_close").map_err(missing)?,
                method_open: *library.get(c"pajamas_et_method_open").map_err(missing)?,
                method_close: *library.get(c"pajamas_et_method_close").map_err(missing)?,
                method_set_input: *library.get(c"pajamas_et_method_set_input").map_err(missing)?,
                method_run: *library.get(c"pajamas_et_method_run").map_err(missing)?,
                method_output: *library.get(c"pajamas_et_method_output").map_err(missing)?,
            }
        };
        // The functions stay valid.
        std::mem::forget(library);
        let runtime = Self { functions };
        // SAFETY: `forward` has the declared type and never unwinds.
        let status = unsafe { (runtime.functions.start)(forward) };
        runtime.check(status).map_err(|status| format!("it cannot start: {}", status.name))?;
        Ok(runtime)
    }

    /// The version of ExecuTorch, such as `1.5.1`.
    pub(crate) fn version(&self) -> String {
        // SAFETY: it returns a text that lives for ever.
        unsafe { text((self.functions.version)()) }
    }

    /// The backends that have registered themselves.
    pub(crate) fn backends(&self) -> Vec<String> {
        // SAFETY: it has no conditions.
        let count = unsafe { (self.functions.backends)() };
        // SAFETY: it returns null or a text that lives for ever.
        (0..count).map(|index| unsafe { text((self.functions.backend)(index)) }).collect()
    }

    /// Sets the threads that all kernels and delegates of the process share. The caller sees to it that no method is loaded.
    pub(crate) fn set_threads(&self, threads: u32) -> Result<(), Status> {
        // SAFETY: it changes the pool only, which nobody uses while no method is loaded: `Library::lease` counts them.
        self.check(unsafe { (self.functions.set_threads)(threads) })
    }

    fn check(&self, status: u32) -> Result<(), Status> {
        if status == OK {
            return Ok(());
        }
        // SAFETY: it returns a text that lives for ever.
        let name = unsafe { text((self.functions.status_name)(status)) };
        Err(Status { code: status, name })
    }

    /// Maps a program's file and verifies it.
    pub(crate) fn open_program(&'static self, file: &CStr) -> Result<Arc<Program>, Status> {
        let mut program = ptr::null_mut();
        // SAFETY: both pointers are valid during the call.
        self.check(unsafe { (self.functions.program_open)(file.as_ptr(), &raw mut program) })?;
        let program = NonNull::new(program).ok_or_else(internal)?;
        Ok(Arc::new(Program { runtime: self, program }))
    }
}

fn internal() -> Status {
    Status { code: 1, name: "Internal".to_owned() }
}

/// The text at a pointer; empty if it is null.
///
/// # Safety
/// It is null or points to a text that ends with a zero and does not change during the call.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// Takes a message of the runtime. May be called on any thread.
unsafe extern "C" fn forward(
    level: c_char,
    file: *const c_char,
    line: usize,
    message: *const c_char,
    message_len: usize,
) {
    // A panic must not go through frames of C++.
    let _ = catch_unwind(|| {
        // SAFETY: the texts are valid during the call, as the header says.
        let (file, message) = unsafe {
            let bytes = match NonNull::new(message.cast_mut()) {
                Some(message) => std::slice::from_raw_parts(message.as_ptr().cast::<u8>(), message_len),
                None => &[],
            };
            (text(file), String::from_utf8_lossy(bytes))
        };
        crate::library::log(level.to_ne_bytes()[0], &file, line, &message);
    });
}

/// A program that is mapped. Any thread may use it.
pub(crate) struct Program {
    runtime: &'static Runtime,
    program: NonNull<RawProgram>,
}

// SAFETY: a program may be used by several threads at once, as the header says.
unsafe impl Send for Program {}
// SAFETY: as above.
unsafe impl Sync for Program {}

impl Program {
    /// Loads a method.
    pub(crate) fn open_method(self: &Arc<Self>, name: &CStr) -> Result<Method, Status> {
        let mut method = ptr::null_mut();
        let functions = &self.runtime.functions;
        // SAFETY: the program is open, and both other pointers are valid during the call.
        let status =
            unsafe { (functions.method_open)(self.program.as_ptr(), name.as_ptr(), &raw mut method) };
        self.runtime.check(status)?;
        let method = NonNull::new(method).ok_or_else(internal)?;
        Ok(Method { program: Arc::clone(self), method })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the library opened it, and nobody uses it any more: its methods hold it.
        unsafe { (self.runtime.functions.program_close)(self.program.as_ptr()) }
    }
}

/// A tensor for a method, or from one.
#[derive(Clone, Debug)]
pub(crate) struct Tensor<'a> {
    /// A code of `ScalarType`.
    pub(crate) scalar_type: u8,
    /// Dimensions.
    pub(crate) sizes: &'a [i32],
    /// The dimensions from the outermost in memory to the innermost.
    pub(crate) dim_order: &'a [u8],
    /// The elements in that order. As an input: in memory that goes on for [`crate::tensor::PADDING`] bytes.
    pub(crate) data: &'a [u8],
}

/// A method that is loaded. One thread at a time may use it.
pub(crate) struct Method {
    program: Arc<Program>,
    method: NonNull<RawMethod>,
}

// SAFETY: a method is bound to no thread.
unsafe impl Send for Method {}

impl Method {
    /// Runs the method once on all its inputs, in their order, and gives its results to `take`.
    pub(crate) fn run<T>(
        &mut self,
        inputs: &[Tensor<'_>],
        take: impl FnOnce(&Results<'_>) -> T,
    ) -> Result<T, Status> {
        let runtime = self.program.runtime;
        let functions = &runtime.functions;
        for (index, input) in inputs.iter().enumerate() {
            let raw = raw(input).ok_or_else(|| Status { code: 0x12, name: "InvalidArgument".to_owned() })?;
            // SAFETY: the method is open and used by nobody else. It may read the elements until the run has ended, and
            // results that are inputs after it: both within this function, during which `inputs` lives.
            runtime.check(unsafe {
                (functions.method_set_input)(self.method.as_ptr(), index, &raw const raw)
            })?;
        }
        // SAFETY: the method is open and used by nobody else.
        runtime.check(unsafe { (functions.method_run)(self.method.as_ptr()) })?;
        Ok(take(&Results { method: self }))
    }
}

impl Drop for Method {
    fn drop(&mut self) {
        // SAFETY: the library opened it, and nobody uses it any more.
        unsafe { (self.program.runtime.functions.method_close)(self.method.as_ptr()) }
    }
}

/// What a run returned, until the next one.
pub(crate) struct Results<'a> {
    method: &'a Method,
}

impl Results<'_> {
    /// Gives one of the results to `take`.
    pub(crate) fn get<T>(&self, index: usize, take: impl FnOnce(Tensor<'_>) -> T) -> Result<T, Status> {
        let runtime = self.method.program.runtime;
        let mut raw = RawTensor {
            scalar_type: 0,
            dims: 0,
            sizes: [0; DIMS_MAX],
            dim_order: [0; DIMS_MAX],
            data: ptr::null(),
            bytes: 0,
        };
        // SAFETY: the method is open and used by nobody else, and the tensor is valid during the call.
        runtime.check(unsafe {
            (runtime.functions.method_output)(self.method.method.as_ptr(), index, &raw mut raw)
        })?;
        let dims = usize::try_from(raw.dims).ok().filter(|dims| *dims <= DIMS_MAX).ok_or_else(internal)?;
        let data = match NonNull::new(raw.data.cast_mut()) {
            // SAFETY: the method has written so many bytes there, and keeps them until it is used again, which the borrow
            // of it prevents.
            Some(data) => unsafe { std::slice::from_raw_parts(data.as_ptr().cast::<u8>(), raw.bytes) },
            None if raw.bytes == 0 => &[],
            None => return Err(internal()),
        };
        Ok(take(Tensor {
            scalar_type: raw.scalar_type.cast_unsigned(),
            sizes: &raw.sizes[..dims],
            dim_order: &raw.dim_order[..dims],
            data,
        }))
    }
}

fn raw(tensor: &Tensor<'_>) -> Option<RawTensor> {
    let dims = tensor.sizes.len();
    if dims > DIMS_MAX || tensor.dim_order.len() != dims {
        return None;
    }
    let (mut sizes, mut dim_order) = ([0; DIMS_MAX], [0; DIMS_MAX]);
    sizes[..dims].copy_from_slice(tensor.sizes);
    dim_order[..dims].copy_from_slice(tensor.dim_order);
    Some(RawTensor {
        scalar_type: tensor.scalar_type.cast_signed(),
        dims: u32::try_from(dims).ok()?,
        sizes,
        dim_order,
        data: tensor.data.as_ptr().cast(),
        bytes: tensor.data.len(),
    })
}
