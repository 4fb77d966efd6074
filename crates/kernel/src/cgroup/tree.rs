//! Making the groups of a process, with its limits, in whichever trees this machine has.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::limit::{Controller, LimitError, Limits, Obstacle, write};
use super::{Cgroup, Mounted, Unusable, remove_below};

/// How often a group is made again whose parent somebody else, who found it empty, removed in that
/// very moment.
const MAKE_TRIES: u32 = 5;

/// The trees in which groups may be made.
#[derive(Debug, Clone)]
pub struct Tree {
    /// Where membership is kept: the version 2 tree, if there is one.
    unified: Option<PathBuf>,
    /// Under which the controllers of version 1 are mounted, if there are any.
    version_1: Option<PathBuf>,
}

/// Where a controller is.
enum Home {
    /// In the version 2 tree.
    Unified(PathBuf),
    /// In a tree of its own.
    Own(PathBuf),
}

/// The groups of one process: the same name in each tree that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// The group that tells its members; `None` where there is only version 1.
    pub members: Option<Cgroup>,
    /// Those of version 1 that limit something. The process must enter each, too.
    pub limiting: Vec<Cgroup>,
}

/// Why the groups of a process cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// A limit cannot be kept.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// There is no group.
    #[error("cannot make the group `{}`", path.display())]
    Group {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Mounted {
    /// The trees in which this process may make groups; `Err` says why there are none.
    pub fn usable(&self) -> Result<Tree, Unusable> {
        let tree = match self {
            Self::Version2(root) => Tree::new(Some(root), None),
            Self::Hybrid(unified) => Tree::new(Some(unified), unified.parent()),
            Self::Version1(root) => Tree::new(None, Some(root)),
            Self::Nowhere => return Err(Unusable::NotMounted),
        };
        if !rustix::process::geteuid().is_root() {
            return Err(Unusable::NotRoot);
        }
        tree.check_writable()?;
        Ok(tree)
    }
}

impl Tree {
    pub(super) fn new(unified: Option<&Path>, version_1: Option<&Path>) -> Self {
        Self {
            unified: unified.map(Path::to_owned),
            version_1: version_1.map(Path::to_owned),
        }
    }

    fn check_writable(&self) -> Result<(), Unusable> {
        let roots = self.roots();
        let writable = |root: &PathBuf| access(root, Access::WRITE_OK).is_ok();
        match self.unified.as_ref() {
            Some(unified) if writable(unified) => Ok(()),
            None if roots.iter().any(writable) => Ok(()),
            None if roots.is_empty() => Err(Unusable::NotMounted),
            Some(_) | None => Err(Unusable::ReadOnly),
        }
    }

    /// Makes the group `name` (`a/b/c`) anew with all that lie above it, and sets its limits. What an
    /// earlier process left of it is removed, so that nothing it used counts any more.
    pub fn make(&self, name: &str, limits: Limits) -> Result<Groups, MakeError> {
        let members = self.unified.as_ref().map(|root| root.join(name));
        if let Some(path) = &members {
            make_anew(path)?;
        }
        let mut limiting = Vec::new();
        for (controller, settings) in limits.settings() {
            let group = match self.home(controller) {
                None => return Err(LimitError::new(controller, Obstacle::Missing).into()),
                Some(Home::Unified(root)) => {
                    hand_down(&root, name, controller)
                        .map_err(|obstacle| LimitError::new(controller, obstacle))?;
                    root.join(name)
                }
                Some(Home::Own(root)) => {
                    let path = root.join(name);
                    make_anew(&path)?;
                    limiting.push(Cgroup::at(&path));
                    path
                }
            };
            settings
                .apply(&group)
                .map_err(|obstacle| LimitError::new(controller, obstacle))?;
        }
        Ok(Groups {
            members: members.map(Cgroup::at),
            limiting,
        })
    }

    fn home(&self, controller: Controller) -> Option<Home> {
        let own = self
            .version_1
            .as_ref()
            .map(|root| root.join(controller.name()));
        if let Some(own) = own.filter(|path| path.join("cgroup.procs").exists()) {
            return Some(Home::Own(own));
        }
        let unified = self.unified.as_ref()?;
        let offered = fs::read_to_string(unified.join("cgroup.controllers")).unwrap_or_default();
        has_word(&offered, controller.name()).then(|| Home::Unified(unified.clone()))
    }

    /// Every tree in which there may be a group of ours.
    fn roots(&self) -> Vec<PathBuf> {
        let own = Controller::ALL
            .into_iter()
            .filter_map(|c| match self.home(c) {
                Some(Home::Own(root)) => Some(root),
                Some(Home::Unified(_)) | None => None,
            });
        self.unified.iter().cloned().chain(own).collect()
    }

    /// Removes the group `name` and what lies below it from every tree; all must be empty.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let mut result = Ok(());
        for root in self.roots() {
            result = result.and(remove_below(&root.join(name)));
        }
        result
    }

    /// Removes the group `name` where nothing is in it or below it.
    pub fn remove_empty(&self, name: &str) {
        for root in self.roots() {
            // The kernel refuses it while it is in use, which is as good.
            let _ = fs::remove_dir(root.join(name));
        }
    }

    /// The names of the groups right below the group `name`, from every tree.
    pub fn below(&self, name: &str) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for root in self.roots() {
            for path in super::subgroups(&root.join(name))? {
                let name = path.file_name().and_then(|name| name.to_str());
                found.extend(name.map(str::to_owned));
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }
}

fn make_anew(path: &Path) -> Result<(), MakeError> {
    // Where it fails, something is still in it; the process then shares what is left of the limit.
    let _ = remove_below(path);
    let mut made = fs::create_dir_all(path);
    for _ in 1..MAKE_TRIES {
        match &made {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                made = fs::create_dir_all(path);
            }
            Ok(()) | Err(_) => break,
        }
    }
    made.map_err(|source| MakeError::Group {
        path: path.to_owned(),
        source,
    })
}

/// Lets each group on the way to `name` give the controller to those below it.
fn hand_down(root: &Path, name: &str, controller: Controller) -> Result<(), Obstacle> {
    let parent = Path::new(name).parent().unwrap_or(Path::new(""));
    let mut way: Vec<&Path> = parent.ancestors().collect();
    way.reverse();
    for group in way {
        let group = root.join(group);
        let file = group.join("cgroup.subtree_control");
        if has_word(
            &fs::read_to_string(&file).unwrap_or_default(),
            controller.name(),
        ) {
            continue;
        }
        write(&file, format!("+{}", controller.name())).map_err(|obstacle| match obstacle {
            // A group other than the outermost that has processes itself gives nothing to those
            // below it; to move processes that are not ours could break whoever put them there.
            Obstacle::Write { source, .. } if source.raw_os_error() == Some(libc::EBUSY) => {
                Obstacle::Occupied { group }
            }
            Obstacle::Write { source, .. } if source.raw_os_error() == Some(libc::ENOENT) => {
                Obstacle::Missing
            }
            other => other,
        })?;
    }
    Ok(())
}

fn has_word(text: &str, word: &str) -> bool {
    text.split_ascii_whitespace().any(|found| found == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    const ALL: Limits = Limits {
        cpu_thousandths: Some(200),
        memory_bytes: Some(256 << 20),
        pids: Some(100),
    };

    /// A directory tree that looks like one of cgroups: groups are there already, with their files.
    fn tree(files: &[(&str, &str)]) -> TempDir {
        let dir = TempDir::new("tree");
        for (path, text) in files {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn text(dir: &TempDir, path: &str) -> String {
        fs::read_to_string(dir.join(path)).unwrap()
    }

    const VERSION_2: [(&str, &str); 9] = [
        ("cgroup.controllers", "cpuset cpu io memory pids\n"),
        ("cgroup.subtree_control", "cpu memory\n"),
        ("m/cgroup.subtree_control", ""),
        ("m/s/cgroup.subtree_control", ""),
        ("m/s/web-1/cpu.max", ""),
        ("m/s/web-1/memory.max", ""),
        ("m/s/web-1/memory.swap.max", ""),
        ("m/s/web-1/memory.oom.group", ""),
        ("m/s/web-1/pids.max", ""),
    ];

    #[test]
    fn in_version_2_controllers_are_handed_down_and_the_limits_stand_in_the_one_group() {
        let dir = tree(&VERSION_2);
        let made = Tree::new(Some(dir.path()), None)
            .make("m/s/web-1", ALL)
            .unwrap();
        assert_eq!(made.members, Some(Cgroup::at(dir.join("m/s/web-1"))));
        assert_eq!(made.limiting, []);
        // Where it was on already, nothing was written.
        assert_eq!(text(&dir, "cgroup.subtree_control"), "+pids");
        assert_eq!(text(&dir, "m/s/cgroup.subtree_control"), "+pids");
        for (file, value) in [
            ("cpu.max", "20000 100000"),
            ("memory.max", "268435456"),
            ("memory.swap.max", "0"),
            ("memory.oom.group", "1"),
            ("pids.max", "100"),
        ] {
            assert_eq!(text(&dir, &format!("m/s/web-1/{file}")), value, "{file}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_with_the_value() {
        let without = |name: &str| {
            let files: Vec<_> = VERSION_2.into_iter().filter(|(p, _)| *p != name).collect();
            let dir = tree(&files);
            let tree = Tree::new(Some(dir.path()), None);
            let error = tree.make("m/s/web-1", ALL).unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            (error.to_string(), source)
        };
        let (error, source) = without("m/s/web-1/cpu.max");
        assert_eq!(error, "the limit `cpu` cannot be kept");
        assert!(
            source.starts_with("cannot write `20000 100000` to `/")
                && source.ends_with("m/s/web-1/cpu.max`"),
            "{source}"
        );
        // Swap and the killing of the whole group are not everywhere.
        let files: Vec<_> = VERSION_2
            .into_iter()
            .filter(|(p, _)| !p.contains("swap") && !p.contains("oom"))
            .collect();
        let dir = tree(&files);
        Tree::new(Some(dir.path()), None)
            .make("m/s/web-1", ALL)
            .unwrap();
    }

    #[test]
    fn a_controller_that_is_not_there_is_named() {
        let dir = tree(&[("cgroup.controllers", "hugetlb\n")]);
        let error = Tree::new(Some(dir.path()), None)
            .make("web-1", ALL)
            .unwrap_err();
        assert!(
            matches!(
                &error,
                MakeError::Limit(LimitError {
                    controller: Controller::Cpu,
                    obstacle: Obstacle::Missing
                })
            ),
            "{error:?}"
        );
        // Without limits none is needed.
        let made = Tree::new(Some(dir.path()), None).make("web-1", Limits::default());
        assert!(made.unwrap().members.unwrap().path().is_dir());
    }

    const VERSION_1: [(&str, &str); 9] = [
        ("cpu/cgroup.procs", ""),
        ("memory/cgroup.procs", ""),
        ("pids/cgroup.procs", ""),
        ("cpu/m/web-1/cpu.cfs_period_us", ""),
        ("cpu/m/web-1/cpu.cfs_quota_us", ""),
        ("memory/m/web-1/memory.limit_in_bytes", ""),
        ("memory/m/web-1/memory.memsw.limit_in_bytes", ""),
        ("pids/m/web-1/pids.max", ""),
        ("unified/cgroup.controllers", "hugetlb\n"),
    ];

    #[test]
    fn in_version_1_each_controller_has_its_own_group_beside_that_of_the_members() {
        let dir = tree(&VERSION_1);
        let unified = dir.join("unified");
        let hybrid = Tree::new(Some(&unified), Some(dir.path()));
        let made = hybrid.make("m/web-1", ALL).unwrap();
        assert_eq!(made.members, Some(Cgroup::at(unified.join("m/web-1"))));
        let limiting = ["cpu", "memory", "pids"].map(|c| Cgroup::at(dir.join(c).join("m/web-1")));
        assert_eq!(made.limiting, limiting);
        for (file, value) in [
            ("cpu/m/web-1/cpu.cfs_period_us", "100000"),
            ("cpu/m/web-1/cpu.cfs_quota_us", "20000"),
            ("memory/m/web-1/memory.limit_in_bytes", "268435456"),
            ("memory/m/web-1/memory.memsw.limit_in_bytes", "268435456"),
            ("pids/m/web-1/pids.max", "100"),
        ] {
            assert_eq!(text(&dir, file), value, "{file}");
        }
        assert_eq!(hybrid.below("m").unwrap(), ["web-1"]);
        assert_eq!(hybrid.below("nothing").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn without_version_2_there_are_limits_and_no_members() {
        let dir = tree(&VERSION_1);
        let tree = Tree::new(None, Some(dir.path()));
        let only_memory = Limits {
            memory_bytes: Some(1 << 20),
            ..Limits::default()
        };
        let made = tree.make("m/web-1", only_memory).unwrap();
        assert_eq!(made.members, None);
        assert_eq!(
            made.limiting,
            [Cgroup::at(dir.join("memory").join("m/web-1"))]
        );
        let none = tree.make("m/web-2", Limits::default()).unwrap();
        assert_eq!(none.limiting, []);
    }
}
