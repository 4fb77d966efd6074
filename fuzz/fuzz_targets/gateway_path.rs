//! The whole way of requests through the gateway, from any bytes of a client and of instances, however
//! they are cut: no panic, an end in time, bounded memory, what reaches an instance is a sequence of
//! requests that two readers see in the same way and that the client said, and no answer reaches
//! another request than its own.
#![no_main]

use cap::Cap;
use libfuzzer_sys::fuzz_target;

/// What one input may cost beyond what there was before it: some connections with their buffers.
const MEMORY_MAX: usize = 64 * 1024 * 1024;

#[global_allocator]
static MEMORY: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

fuzz_target!(|bytes: &[u8]| {
    MEMORY
        .set_limit(MEMORY.allocated() + MEMORY_MAX)
        .expect("it is above what is there");
    mainstay_gateway::driven::drive(bytes);
});
