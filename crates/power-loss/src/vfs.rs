//! The functions that SQLite calls: each finds the platter and asks it.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_io_methods, sqlite3_vfs};

use crate::platter::{FileId, HandleId, Hold, Make, Platter, Refusal};

/// The longest name.
const NAME_LEN_MAX: c_int = 512;

/// What Linux's file systems are taken for: what was not written stays as it was.
const CHARACTERISTICS: c_int = ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE;

/// As SQLite assumes it for Linux; how far a write can be torn is the platter's to say.
const SECTOR_SIZE: c_int = 4096;

/// Midnight of 1 January 2026 in SQLite's milliseconds since noon in Greenwich on 24 November 4714 B.C.
const CLOCK: i64 = 212_634_028_800_000;

/// A registered VFS; unregistered when this is dropped. Its few bytes are never freed, since a
/// connection that is still open may call it.
#[derive(Debug)]
pub(crate) struct Registered {
    name: String,
    vfs: *mut sqlite3_vfs,
}

// SAFETY: the pointer is only given to sqlite3_vfs_register and sqlite3_vfs_unregister, which may
// be called from any thread; what it points to is never changed by us after that.
unsafe impl Send for Registered {}
// SAFETY: as above; nothing is done through a shared reference.
unsafe impl Sync for Registered {}

/// What the VFS points to; emptied when it is unregistered.
type Slot = Mutex<Option<Arc<Mutex<Platter>>>>;

impl Registered {
    pub(crate) fn new(platter: Arc<Mutex<Platter>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("power-loss-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let slot: Box<Slot> = Box::new(Mutex::new(Some(platter)));
        let vfs = Box::into_raw(Box::new(sqlite3_vfs {
            iVersion: 2,
            szOsFile: c_int::try_from(size_of::<Opened>()).expect("small"),
            mxPathname: NAME_LEN_MAX,
            pNext: ptr::null_mut(),
            zName: CString::new(name.clone()).expect("no zero").into_raw(),
            pAppData: Box::into_raw(slot).cast(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_pathname),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: None,
            xGetLastError: None,
            xCurrentTimeInt64: Some(current_time),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        // SAFETY: the struct is complete and lives for ever.
        let registered = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
        assert_eq!(registered, ffi::SQLITE_OK, "a VFS can be registered");
        Self { name, vfs }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: it was registered in `new`, and stays allocated.
        unsafe { ffi::sqlite3_vfs_unregister(self.vfs) };
        // SAFETY: `new` made it, and it is never freed.
        let slot = unsafe { slot(self.vfs) };
        slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// # Safety
/// `vfs` was made by [`Registered::new`].
unsafe fn slot<'a>(vfs: *mut sqlite3_vfs) -> &'a Slot {
    // SAFETY: `pAppData` is a leaked `Slot` by the caller's word.
    unsafe { &*(*vfs).pAppData.cast::<Slot>() }
}

/// # Safety
/// `vfs` was made by [`Registered::new`].
unsafe fn platter_of(vfs: *mut sqlite3_vfs) -> Option<Arc<Mutex<Platter>>> {
    // SAFETY: by the caller's word.
    let slot = unsafe { slot(vfs) };
    slot.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn lock(platter: &Mutex<Platter>) -> MutexGuard<'_, Platter> {
    platter.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What SQLite allocates for an open file: its own part first.
#[repr(C)]
struct Opened {
    base: sqlite3_file,
    handle: *mut Handle,
}

struct Handle {
    platter: Arc<Mutex<Platter>>,
    file: FileId,
    id: HandleId,
    /// The first sync makes its name durable, too, as SQLite does it on Linux.
    names_too: bool,
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock_file),
    xUnlock: Some(unlock_file),
    xCheckReservedLock: Some(check_reserved),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

fn code(outcome: Result<(), Refusal>, otherwise: c_int) -> c_int {
    match outcome {
        Ok(()) => ffi::SQLITE_OK,
        Err(Refusal::NoRoom) => ffi::SQLITE_FULL,
        Err(Refusal::Locked) => ffi::SQLITE_BUSY,
        Err(Refusal::NoPower | Refusal::NoSuchFile) => otherwise,
    }
}

/// # Safety
/// `name` is null or a C string.
unsafe fn text<'a>(name: *const c_char) -> Option<&'a str> {
    if name.is_null() {
        return None;
    }
    // SAFETY: by the caller's word.
    unsafe { CStr::from_ptr(name) }.to_str().ok()
}

/// # Safety
/// SQLite's: `vfs` is ours, `file` has room for an [`Opened`], `name` is null or a C string.
unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives room for an `Opened`; without methods it does not call `xClose`.
    unsafe { (*file).pMethods = ptr::null() };
    // SAFETY: SQLite gives our own VFS.
    let Some(platter) = (unsafe { platter_of(vfs) }) else {
        return ffi::SQLITE_CANTOPEN;
    };
    let journal = ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL;
    let make = match (
        flags & ffi::SQLITE_OPEN_CREATE,
        flags & ffi::SQLITE_OPEN_MAIN_DB,
    ) {
        (0, _) => Make::No,
        (_, 0) => Make::Yes,
        // Whoever opens the database made the file before, and its name durable.
        _ => Make::Durably,
    };
    // SAFETY: SQLite gives a C string or null.
    let opened = match unsafe { text(name) } {
        Some(name) => lock(&platter).open(name, make),
        None => lock(&platter).open_unnamed(),
    };
    let Ok((number, id)) = opened else {
        return ffi::SQLITE_CANTOPEN;
    };
    let handle = Box::new(Handle {
        platter,
        file: number,
        id,
        names_too: make == Make::Yes && flags & journal != 0,
    });
    // SAFETY: as above; `out_flags` may be null.
    unsafe {
        if !out_flags.is_null() {
            *out_flags = flags;
        }
        let opened = file.cast::<Opened>();
        (*opened).handle = Box::into_raw(handle);
        (*opened).base.pMethods = &raw const METHODS;
    }
    ffi::SQLITE_OK
}

/// # Safety
/// SQLite's: `file` was opened by [`open`] and not closed, and nobody else uses it now.
unsafe fn handle<'a>(file: *mut sqlite3_file) -> &'a mut Handle {
    // SAFETY: by the caller's word; a connection calls from one thread at a time.
    unsafe { &mut *(*file.cast::<Opened>()).handle }
}

/// # Safety
/// As [`handle`].
unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: `open` made it with `Box::into_raw`, and SQLite closes once.
    let handle = unsafe { Box::from_raw((*file.cast::<Opened>()).handle) };
    lock(&handle.platter).close(handle.file, handle.id);
    ffi::SQLITE_OK
}

/// # Safety
/// As [`handle`]; `bytes` has room for `len`.
unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    bytes: *mut c_void,
    len: c_int,
    at: i64,
) -> c_int {
    // SAFETY: by SQLite's word.
    let (handle, bytes) = unsafe { (handle(file), sized_mut(bytes, len)) };
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    match lock(&handle.platter).read(handle.file, at, bytes) {
        Ok(read) if read == bytes.len() => ffi::SQLITE_OK,
        Ok(_) => ffi::SQLITE_IOERR_SHORT_READ,
        Err(_) => ffi::SQLITE_IOERR_READ,
    }
}

/// # Safety
/// `bytes` has room for `len`, and nobody else uses it for `'a`.
unsafe fn sized_mut<'a>(bytes: *mut c_void, len: c_int) -> &'a mut [u8] {
    let len = usize::try_from(len).unwrap_or(0);
    // SAFETY: by the caller's word.
    unsafe { slice::from_raw_parts_mut(bytes.cast::<u8>(), len) }
}

/// # Safety
/// As [`handle`]; `bytes` holds `len`.
unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    len: c_int,
    at: i64,
) -> c_int {
    let len = usize::try_from(len).unwrap_or(0);
    // SAFETY: by SQLite's word.
    let (handle, bytes) = unsafe { (handle(file), slice::from_raw_parts(bytes.cast(), len)) };
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    let written = lock(&handle.platter).write(handle.file, at, bytes);
    code(written, ffi::SQLITE_IOERR_WRITE)
}

/// # Safety
/// As [`handle`].
unsafe extern "C" fn truncate(file: *mut sqlite3_file, len: i64) -> c_int {
    // SAFETY: by SQLite's word.
    let handle = unsafe { handle(file) };
    let len = usize::try_from(len).unwrap_or(0);
    code(
        lock(&handle.platter).cut(handle.file, len),
        ffi::SQLITE_IOERR_TRUNCATE,
    )
}

/// # Safety
/// As [`handle`].
unsafe extern "C" fn sync(file: *mut sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: by SQLite's word.
    let handle = unsafe { handle(file) };
    let mut platter = lock(&handle.platter);
    let synced = platter.sync(handle.file);
    if synced.is_ok() && std::mem::take(&mut handle.names_too) {
        platter.sync_names();
    }
    code(synced, ffi::SQLITE_IOERR_FSYNC)
}

/// # Safety
/// As [`handle`]; `len` can be written.
unsafe extern "C" fn file_size(file: *mut sqlite3_file, len: *mut i64) -> c_int {
    // SAFETY: by SQLite's word.
    let handle = unsafe { handle(file) };
    match lock(&handle.platter).len(handle.file) {
        Ok(found) => {
            // SAFETY: by SQLite's word.
            unsafe { *len = i64::try_from(found).unwrap_or(i64::MAX) };
            ffi::SQLITE_OK
        }
        Err(_) => ffi::SQLITE_IOERR_FSTAT,
    }
}

fn hold_of(level: c_int) -> Hold {
    match level {
        ffi::SQLITE_LOCK_NONE => Hold::None,
        ffi::SQLITE_LOCK_SHARED => Hold::Shared,
        ffi::SQLITE_LOCK_RESERVED => Hold::Reserved,
        _ => Hold::Exclusive,
    }
}

/// # Safety
/// As [`handle`].
unsafe extern "C" fn lock_file(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: by SQLite's word.
    let handle = unsafe { handle(file) };
    let held = lock(&handle.platter).hold(handle.file, handle.id, hold_of(level));
    code(held, ffi::SQLITE_IOERR_LOCK)
}

/// # Safety
/// As [`handle`].
unsafe extern "C" fn unlock_file(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: by SQLite's word.
    let handle = unsafe { handle(file) };
    // Less is always free.
    let held = lock(&handle.platter).hold(handle.file, handle.id, hold_of(level));
    code(held, ffi::SQLITE_IOERR_UNLOCK)
}

/// # Safety
/// As [`handle`]; `reserved` can be written.
unsafe extern "C" fn check_reserved(file: *mut sqlite3_file, reserved: *mut c_int) -> c_int {
    // SAFETY: by SQLite's word.
    let handle = unsafe { handle(file) };
    let is = lock(&handle.platter).is_reserved(handle.file);
    // SAFETY: by SQLite's word.
    unsafe { *reserved = c_int::from(is) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut sqlite3_file) -> c_int {
    SECTOR_SIZE
}

unsafe extern "C" fn characteristics(_: *mut sqlite3_file) -> c_int {
    CHARACTERISTICS
}

/// # Safety
/// As [`handle`]; `address` can be written.
unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    _len: c_int,
    extend: c_int,
    address: *mut *mut c_void,
) -> c_int {
    // SAFETY: by SQLite's word.
    let handle = unsafe { handle(file) };
    let region = usize::try_from(region).unwrap_or(0);
    let make = if extend == 0 { Make::No } else { Make::Yes };
    let found = lock(&handle.platter).map(handle.file, handle.id, region, make);
    // SAFETY: by SQLite's word. The region stays where it is until its last user unmaps it.
    unsafe { *address = found.map_or(ptr::null_mut(), <*mut u64>::cast) };
    ffi::SQLITE_OK
}

/// # Safety
/// As [`handle`].
unsafe extern "C" fn shm_lock(
    file: *mut sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: by SQLite's word.
    let handle = unsafe { handle(file) };
    let first = usize::try_from(first).unwrap_or(0);
    let count = usize::try_from(count).unwrap_or(0);
    let want = if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        Hold::None
    } else if flags & ffi::SQLITE_SHM_SHARED != 0 {
        Hold::Shared
    } else {
        Hold::Exclusive
    };
    let locks = first..first + count;
    let locked = lock(&handle.platter).lock_shared(handle.file, handle.id, locks, want);
    code(locked, ffi::SQLITE_IOERR_SHMLOCK)
}

unsafe extern "C" fn shm_barrier(_: *mut sqlite3_file) {
    fence(Ordering::SeqCst);
}

/// # Safety
/// As [`handle`].
unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, _delete: c_int) -> c_int {
    // SAFETY: by SQLite's word.
    let handle = unsafe { handle(file) };
    lock(&handle.platter).unmap(handle.file, handle.id);
    ffi::SQLITE_OK
}

/// # Safety
/// SQLite's: `vfs` is ours, `name` is a C string.
unsafe extern "C" fn delete(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    sync_directory: c_int,
) -> c_int {
    // SAFETY: by SQLite's word.
    let (Some(platter), Some(name)) = (unsafe { (platter_of(vfs), text(name)) }) else {
        return ffi::SQLITE_IOERR_DELETE;
    };
    let durably = if sync_directory == 0 {
        Make::No
    } else {
        Make::Durably
    };
    let removed = lock(&platter).remove(name, durably);
    match removed {
        Err(Refusal::NoSuchFile) => ffi::SQLITE_IOERR_DELETE_NOENT,
        other => code(other, ffi::SQLITE_IOERR_DELETE),
    }
}

/// # Safety
/// SQLite's: `vfs` is ours, `name` is a C string, `found` can be written.
unsafe extern "C" fn access(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    _flags: c_int,
    found: *mut c_int,
) -> c_int {
    // SAFETY: by SQLite's word.
    let (Some(platter), Some(name)) = (unsafe { (platter_of(vfs), text(name)) }) else {
        return ffi::SQLITE_IOERR_ACCESS;
    };
    match lock(&platter).exists(name) {
        Ok(exists) => {
            // SAFETY: by SQLite's word.
            unsafe { *found = c_int::from(exists) };
            ffi::SQLITE_OK
        }
        Err(_) => ffi::SQLITE_IOERR_ACCESS,
    }
}

/// # Safety
/// SQLite's: `name` is a C string, `out` has room for `len`.
unsafe extern "C" fn full_pathname(
    _vfs: *mut sqlite3_vfs,
    name: *const c_char,
    len: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: by SQLite's word.
    let (name, out) = unsafe { (CStr::from_ptr(name), sized_mut(out.cast(), len)) };
    let name = name.to_bytes_with_nul();
    if name.len() > out.len() {
        return ffi::SQLITE_CANTOPEN;
    }
    out[..name.len()].copy_from_slice(name);
    ffi::SQLITE_OK
}

/// # Safety
/// SQLite's: `out` has room for `len`.
unsafe extern "C" fn randomness(_vfs: *mut sqlite3_vfs, len: c_int, out: *mut c_char) -> c_int {
    // SAFETY: by SQLite's word.
    let out = unsafe { sized_mut(out.cast(), len) };
    fastrand::fill(out);
    len
}

unsafe extern "C" fn sleep(_vfs: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    std::thread::yield_now();
    microseconds
}

/// # Safety
/// SQLite's: `now` can be written.
unsafe extern "C" fn current_time(_vfs: *mut sqlite3_vfs, now: *mut i64) -> c_int {
    // SAFETY: by SQLite's word.
    unsafe { *now = CLOCK };
    ffi::SQLITE_OK
}
