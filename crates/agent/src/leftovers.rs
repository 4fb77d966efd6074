//! Ending the instances of a state directory without an agent: for a supervisor that ends and may
//! leave nothing behind, not even when the directory is gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mainstay_ids::InstanceId;
use mainstay_kernel::cgroup::Mounted;
use mainstay_kernel::signals::Signal;
use mainstay_kernel::strays::Strays;

use crate::context::mark;
use crate::found::{self, Found};
use crate::groups;
use crate::launch::{MARK, SHIM_MARK};
use crate::record::RunDir;

/// What may be left of a state directory's instances.
#[derive(Debug, Clone)]
pub struct Leftovers {
    state: PathBuf,
    mark: String,
}

impl Leftovers {
    /// Of this directory, which exists.
    pub fn of(state: &Path) -> io::Result<Self> {
        let state = state.canonicalize()?;
        let mark = mark(&state);
        Ok(Self { state, mark })
    }

    /// Kills every instance, within `limit`. Returns how many were told to end or had to be found.
    /// No agent may run: it would start them again.
    pub fn end(&self, limit: Duration) -> io::Result<usize> {
        let end = Instant::now() + limit;
        let told = self.end_by_shims(end)?;
        // Whose shim is not known by the files, or did not end. Shims first: they start programs.
        let mut found = 0;
        for name in [SHIM_MARK, MARK] {
            let marks = vec![format!("{name}={}", self.mark)];
            let strays = Strays {
                session: None,
                marks,
            };
            found += strays.kill()?;
        }
        if let Ok(tree) = Mounted::detect().usable() {
            groups::sweep(&tree, &self.state, &self.mark);
        }
        Ok(told + found)
    }

    /// A shim ends everything that its program started, and writes down how it ended.
    fn end_by_shims(&self, end: Instant) -> io::Result<usize> {
        let mut shims = Vec::new();
        for run in self.run_dirs()? {
            // Who cannot be known by the files, or is just being started, is found by the mark.
            if let Ok(Some(Found::Live { shim, .. })) = found::look(&run) {
                shim.signal(Signal::QUIT)?;
                shims.push(shim);
            }
        }
        for shim in &shims {
            shim.wait_end(end.saturating_duration_since(Instant::now()))?;
        }
        Ok(shims.len())
    }

    fn run_dirs(&self) -> io::Result<Vec<RunDir>> {
        let entries = match fs::read_dir(self.state.join("run")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|name| name.parse().ok());
            found.extend(id.map(|id: InstanceId| RunDir::of(&self.state, &id)));
        }
        Ok(found)
    }
}
