//! espeak-ng's C interface (`speak_lib.h` of espeak-ng 1.50 to 1.52), loaded at run time.
//!
//! The library has one state for the whole process and no locks. [`Library`] is therefore made once, by `espeak::open`,
//! and every call takes it by `&mut`.
#![expect(unsafe_code, reason = "espeak-ng has a C interface, and is loaded at run time")]

use std::any::Any;
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_short, c_uint, c_void};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::ptr;

/// `AUDIO_OUTPUT_SYNCHRONOUS`: sound goes to the callback, before `espeak_Synth` returns.
const OUTPUT_SYNCHRONOUS: c_int = 2;
/// `espeakINITIALIZE_DONT_EXIT`: without it a missing file ends the process.
const INITIALIZE_DONT_EXIT: c_int = 0x8000;
/// `espeakCHARS_UTF8`.
const CHARS_UTF8: c_int = 1;
/// `espeakPHONEMES_IPA`.
const PHONEMES_IPA: c_int = 0x02;
/// `espeakRATE`.
const PARAMETER_RATE: c_int = 1;
/// `POS_CHARACTER`.
const POSITION_CHARACTER: c_int = 1;
/// `EE_OK`.
const OK: c_int = 0;
/// Most items of a list without a length that are read; more means that it is not what it seems.
const LIST_LEN_MAX: usize = 4096;

/// `espeak_VOICE`.
#[repr(C)]
struct RawVoice {
    name: *const c_char,
    /// One byte of priority and a zero-terminated name for each language, then a zero.
    languages: *const c_char,
    identifier: *const c_char,
    gender: u8,
    age: u8,
    variant: u8,
    xx1: u8,
    score: c_int,
    spare: *mut c_void,
}

type SynthCallback = unsafe extern "C" fn(*mut c_short, c_int, *mut c_void) -> c_int;

/// The functions in use, by value: the library is never closed.
struct Functions {
    initialize: unsafe extern "C" fn(c_int, c_int, *const c_char, c_int) -> c_int,
    info: unsafe extern "C" fn(*mut *const c_char) -> *const c_char,
    list_voices: unsafe extern "C" fn(*mut RawVoice) -> *const *const RawVoice,
    set_voice_by_name: unsafe extern "C" fn(*const c_char) -> c_int,
    set_parameter: unsafe extern "C" fn(c_int, c_int, c_int) -> c_int,
    set_synth_callback: unsafe extern "C" fn(SynthCallback),
    synth: unsafe extern "C" fn(
        *const c_void,
        usize,
        c_uint,
        c_int,
        c_uint,
        c_uint,
        *mut c_uint,
        *mut c_void,
    ) -> c_int,
    text_to_phonemes: unsafe extern "C" fn(*mut *const c_void, c_int, c_int) -> *const c_char,
}

/// A voice or variant as the library lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListedVoice {
    pub(super) name: String,
    /// In the library's order: the voice's own first.
    pub(super) languages: Vec<String>,
    pub(super) identifier: String,
}

/// espeak-ng, loaded and initialised.
pub(super) struct Library {
    functions: Functions,
    /// Kept so that the functions stay valid.
    _library: libloading::Library,
}

/// What the sound of [`Library::speak`] goes to: `false` ends it.
type Sink<'a> = dyn FnMut(&[i16]) -> bool + 'a;

thread_local! {
    /// The sink of the call that runs on this thread; null between calls.
    static SINK: Cell<*mut SinkSlot> = const { Cell::new(ptr::null_mut()) };
}

struct SinkSlot {
    /// A `&mut Sink`, whose lifetime ends with the call that put it here.
    sink: *mut Sink<'static>,
    panic: Option<Box<dyn Any + Send>>,
}

impl Library {
    /// Loads the library; initialises nothing. To be called for one library in a process.
    pub(super) fn load(file: &Path) -> Result<Self, libloading::Error> {
        // SAFETY: espeak-ng's initialisers only fill its tables. Whoever names another file trusts it with the process.
        let library = unsafe { libloading::Library::new(file)? };
        // SAFETY: the types are those of speak_lib.h, which are the same from 1.50 to 1.52.
        let functions = unsafe {
            Functions {
                initialize: *library.get(c"espeak_Initialize")?,
                info: *library.get(c"espeak_Info")?,
                list_voices: *library.get(c"espeak_ListVoices")?,
                set_voice_by_name: *library.get(c"espeak_SetVoiceByName")?,
                set_parameter: *library.get(c"espeak_SetParameter")?,
                set_synth_callback: *library.get(c"espeak_SetSynthCallback")?,
                synth: *library.get(c"espeak_Synth")?,
                text_to_phonemes: *library.get(c"espeak_TextToPhonemes")?,
            }
        };
        Ok(Self { functions, _library: library })
    }

    /// The library's version, such as `1.52.0`, and once initialised the folder of its data.
    pub(super) fn info(&mut self) -> (String, String) {
        let mut data: *const c_char = ptr::null();
        // SAFETY: the argument is a valid place for one pointer.
        let version = unsafe { (self.functions.info)(&raw mut data) };
        // SAFETY: both are null or zero-terminated strings in static memory.
        unsafe { (owned(version), owned(data)) }
    }

    /// Reads the data. `parent` is the folder that contains `espeak-ng-data`; without it the library looks where it was
    /// built for. Returns the frames per second of its sound, or its status.
    pub(super) fn initialize(&mut self, parent: Option<&CStr>) -> Result<u32, c_int> {
        let parent = parent.map_or(ptr::null(), CStr::as_ptr);
        // SAFETY: the path is null or zero-terminated; the library copies it.
        let rate =
            unsafe { (self.functions.initialize)(OUTPUT_SYNCHRONOUS, 0, parent, INITIALIZE_DONT_EXIT) };
        match u32::try_from(rate) {
            Ok(rate) if rate > 0 => {
                // SAFETY: the callback is a function of this file that lives as long as the process.
                unsafe { (self.functions.set_synth_callback)(on_sound) };
                Ok(rate)
            }
            _ => Err(rate),
        }
    }

    /// The voices, or their variants, such as `!v/f3`.
    pub(super) fn voices(&mut self, variants: bool) -> Vec<ListedVoice> {
        // In a wish, unlike in an answer, this is one plain string.
        let languages = c"variant";
        let mut wanted = RawVoice {
            name: ptr::null(),
            languages: languages.as_ptr(),
            identifier: ptr::null(),
            gender: 0,
            age: 0,
            variant: 0,
            xx1: 0,
            score: 0,
            spare: ptr::null_mut(),
        };
        let wanted = if variants { &raw mut wanted } else { ptr::null_mut() };
        // SAFETY: the argument is null or a filled struct; the answer is an array of pointers that ends with null, or null.
        let list = unsafe { (self.functions.list_voices)(wanted) };
        let mut found = Vec::new();
        for index in 0..LIST_LEN_MAX {
            // SAFETY: `list` is not null, and no entry before this one was null.
            let Some(voice) = (!list.is_null()).then(|| unsafe { *list.add(index) }) else { break };
            if voice.is_null() {
                break;
            }
            // SAFETY: entries point to structs of the library that live until the next call that lists voices.
            found.push(unsafe { listed(&*voice) });
        }
        found
    }

    /// Makes a voice the current one.
    pub(super) fn set_voice(&mut self, name: &CStr) -> Result<(), c_int> {
        // SAFETY: the name is zero-terminated; the library copies it.
        match unsafe { (self.functions.set_voice_by_name)(name.as_ptr()) } {
            OK => Ok(()),
            status => Err(status),
        }
    }

    /// Sets the speed of [`Library::speak`].
    pub(super) fn set_rate(&mut self, words_per_minute: c_int) {
        // SAFETY: takes numbers only, and checks them.
        unsafe { (self.functions.set_parameter)(PARAMETER_RATE, words_per_minute, 0) };
    }

    /// Turns a text into IPA clause by clause. `each` gets the phonemes, the bytes of `text` that were consumed for
    /// them, and whether the text is at its end.
    pub(super) fn phonemes(&mut self, text: &CStr, mut each: impl FnMut(&str, Range<usize>, bool)) {
        let begin = text.as_ptr();
        let len = text.count_bytes();
        let mut position: *const c_void = begin.cast();
        let mut consumed = 0;
        // Every call but the last consumes at least one character.
        for _ in 0..len + 2 {
            // SAFETY: the position is inside the text, whose end is marked by a zero.
            let phonemes =
                unsafe { (self.functions.text_to_phonemes)(&raw mut position, CHARS_UTF8, PHONEMES_IPA) };
            // SAFETY: null, or a zero-terminated string that is valid until the next call.
            let phonemes = unsafe { owned(phonemes) };
            let is_last = position.is_null();
            let next = if is_last { len } else { position.addr().saturating_sub(begin.addr()).min(len) };
            each(&phonemes, consumed.min(next)..next, is_last);
            if is_last {
                return;
            }
            consumed = next;
        }
    }

    /// Speaks a text with the current voice. Chunks of mono sound go to `sink` as they are made.
    pub(super) fn speak(&mut self, text: &CStr, sink: &mut Sink<'_>) -> Result<(), c_int> {
        // SAFETY: only the lifetime changes. The pointer is used by `on_sound` only, on this thread, and is removed
        // before this function returns.
        let sink = unsafe { std::mem::transmute::<*mut Sink<'_>, *mut Sink<'static>>(sink) };
        let mut slot = SinkSlot { sink, panic: None };
        SINK.set(&raw mut slot);
        let size = text.to_bytes_with_nul().len();
        let (flags, end) = (CHARS_UTF8.unsigned_abs(), 0);
        // SAFETY: the text is `size` bytes long and zero-terminated; the optional outputs are null.
        let status = unsafe {
            (self.functions.synth)(
                text.as_ptr().cast(),
                size,
                0,
                POSITION_CHARACTER,
                end,
                flags,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        SINK.set(ptr::null_mut());
        if let Some(panic) = slot.panic {
            resume_unwind(panic);
        }
        if status == OK { Ok(()) } else { Err(status) }
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").finish_non_exhaustive()
    }
}

/// `t_espeak_callback`: 0 goes on, 1 ends the synthesis.
///
/// # Safety
/// `wave` is null or points to `len` samples.
unsafe extern "C" fn on_sound(wave: *mut c_short, len: c_int, _events: *mut c_void) -> c_int {
    let slot = SINK.get();
    let (false, Ok(len)) = (slot.is_null(), usize::try_from(len)) else {
        return 1;
    };
    if wave.is_null() || len == 0 {
        return 0;
    }
    // SAFETY: the slot is a local of `speak`, which is below this call on the same thread and does not touch it now.
    let slot = unsafe { &mut *slot };
    // SAFETY: the caller promises `len` samples; the library changes them only after the return.
    let samples = unsafe { std::slice::from_raw_parts(wave, len) };
    // SAFETY: `speak` borrows the sink mutably for as long as the slot is set.
    let sink = unsafe { &mut *slot.sink };
    match catch_unwind(AssertUnwindSafe(|| sink(samples))) {
        Ok(go_on) => c_int::from(!go_on),
        Err(panic) => {
            slot.panic = Some(panic);
            1
        }
    }
}

/// # Safety
/// `voice` is as the library fills it.
unsafe fn listed(voice: &RawVoice) -> ListedVoice {
    let mut languages = Vec::new();
    let mut position = voice.languages;
    while languages.len() < LIST_LEN_MAX && !position.is_null() {
        // SAFETY: the list has a priority here, or the zero that ends it.
        if unsafe { *position } == 0 {
            break;
        }
        // SAFETY: a zero-terminated name follows each priority.
        let name = unsafe { CStr::from_ptr(position.add(1)) };
        languages.push(name.to_string_lossy().into_owned());
        // SAFETY: what follows the name is the next priority, or the zero that ends the list.
        position = unsafe { position.add(2 + name.count_bytes()) };
    }
    // SAFETY: the strings are null or zero-terminated.
    unsafe { ListedVoice { name: owned(voice.name), languages, identifier: owned(voice.identifier) } }
}

/// # Safety
/// `text` is null or zero-terminated.
unsafe fn owned(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, so zero-terminated.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// A text for the library. Control characters become spaces: the library takes some for commands, of which one writes
/// past a buffer.
pub(super) fn c_text(text: &str) -> CString {
    let is_space = |c: char| matches!(c, '\n' | '\r' | '\t');
    let clean: String = text.chars().map(|c| if c.is_control() && !is_space(c) { ' ' } else { c }).collect();
    // A zero is a control character, so there is none left.
    CString::new(clean).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_the_library_do_not_come_from_a_text() {
        // Byte 1 begins an embedded command.
        assert_eq!(c_text("a\u{1}B!\0\n\tb\u{85}").as_c_str(), c"a B! \n\tb ");
    }
}
