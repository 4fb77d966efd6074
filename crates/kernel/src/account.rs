//! Accounts, read from `/etc/passwd` and `/etc/group`.
//!
//! Not through the name service switch: its modules cannot be loaded into a static binary. An
//! account that only a directory server knows is therefore not found.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// An account with everything that switching to it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub uid: u32,
    /// The number of its main group.
    pub gid: u32,
    /// The numbers of all its groups, the main one among them.
    pub groups: Vec<u32>,
    /// Its home directory.
    pub home: PathBuf,
}

impl Account {
    /// The account of this name; `None` if this machine has none.
    pub fn find(name: &str) -> io::Result<Option<Self>> {
        Self::find_in(name, Path::new("/etc"))
    }

    fn find_in(name: &str, etc: &Path) -> io::Result<Option<Self>> {
        let passwd = fs::read_to_string(etc.join("passwd"))?;
        let Some((uid, gid, home)) = passwd.lines().find_map(|line| passwd_entry(line, name))
        else {
            return Ok(None);
        };
        let mut groups = vec![gid];
        let group_file = fs::read_to_string(etc.join("group"))?;
        for group in group_file.lines().filter_map(|line| membership(line, name)) {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        Ok(Some(Self {
            uid,
            gid,
            groups,
            home,
        }))
    }

    /// The number of the group of this name; `None` if this machine has none.
    pub fn group(name: &str) -> io::Result<Option<u32>> {
        Self::group_in(name, Path::new("/etc"))
    }

    fn group_in(name: &str, etc: &Path) -> io::Result<Option<u32>> {
        let groups = fs::read_to_string(etc.join("group"))?;
        Ok(groups.lines().find_map(|line| group_entry(line, name)))
    }

    /// Whether this process already runs under it, so that nothing has to be switched.
    pub fn is_own(&self) -> bool {
        rustix::process::geteuid().as_raw() == self.uid
            && rustix::process::getegid().as_raw() == self.gid
    }
}

impl Account {
    /// Whether there is anything to switch. Root takes over its own account, too, so that groups
    /// which it only inherited are dropped; others may not.
    pub(crate) fn is_to_be_taken(&self) -> bool {
        !self.is_own() || rustix::process::geteuid().is_root()
    }

    /// The first directory on the way to `path`, or `path` itself if it is one, that the account may
    /// not enter; `None`: it may enter all. Access lists are not looked at.
    pub fn barrier(&self, path: &Path) -> Option<PathBuf> {
        let path = path.canonicalize().ok()?;
        let mut way: Vec<&Path> = path.ancestors().collect();
        way.reverse();
        let shut = way.into_iter().find(|directory| {
            let metadata = fs::metadata(directory).ok();
            metadata.is_some_and(|found| found.is_dir() && !self.may_enter(&found))
        });
        shut.map(Path::to_owned)
    }

    /// `path_resolution(7)`: the most specific of the three sets of permissions counts alone.
    fn may_enter(&self, directory: &fs::Metadata) -> bool {
        let execute = match directory {
            _ if self.uid == 0 => return true,
            of if of.uid() == self.uid => 0o100,
            of if self.groups.contains(&of.gid()) => 0o010,
            _ => 0o001,
        };
        directory.mode() & execute != 0
    }
}

/// `name:password:uid:gid:comment:home:shell`
fn passwd_entry(line: &str, name: &str) -> Option<(u32, u32, PathBuf)> {
    let mut fields = line.split(':');
    if fields.next() != Some(name) {
        return None;
    }
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some((uid, gid, fields.nth(1)?.into()))
}

/// `group:password:gid:member,member`
fn group_entry(line: &str, name: &str) -> Option<u32> {
    let mut fields = line.split(':');
    if fields.next() != Some(name) {
        return None;
    }
    fields.nth(1)?.parse().ok()
}

/// `group:password:gid:member,member`
fn membership(line: &str, name: &str) -> Option<u32> {
    let mut fields = line.split(':').skip(2);
    let gid = fields.next()?.parse().ok()?;
    fields
        .next()?
        .split(',')
        .any(|member| member == name)
        .then_some(gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_with_its_groups() {
        let etc = mainstay_testkit::TempDir::new("etc");
        fs::write(
            etc.join("passwd"),
            "root:x:0:0:root:/root:/bin/sh\nshop:x:1007:1008:A:/home/shop:\n",
        )
        .unwrap();
        fs::write(
            etc.join("group"),
            "shop:x:1008:\nwww:x:33:web,shop\nshopping:x:9:shopper\n",
        )
        .unwrap();
        let shop = Account {
            uid: 1007,
            gid: 1008,
            groups: vec![1008, 33],
            home: "/home/shop".into(),
        };
        assert_eq!(Account::find_in("shop", etc.path()).unwrap(), Some(shop));
        assert_eq!(Account::find_in("sho", etc.path()).unwrap(), None);
    }

    #[test]
    fn the_directory_that_an_account_may_not_enter_is_found() {
        use std::os::unix::fs::PermissionsExt;
        let dir = mainstay_testkit::TempDir::new("barrier");
        let shut = dir.join("shut");
        fs::create_dir_all(shut.join("open")).unwrap();
        fs::write(shut.join("open/program"), "").unwrap();
        let of_file = fs::metadata(&shut).unwrap();
        let account = |uid, gid| Account {
            uid,
            gid,
            groups: vec![gid],
            home: "/".into(),
        };
        let stranger = account(of_file.uid() + 7, of_file.gid() + 7);
        let owner = account(of_file.uid(), of_file.gid() + 7);
        let member = account(of_file.uid() + 7, of_file.gid());
        let barrier = |mode, account: &Account| {
            fs::set_permissions(&shut, fs::Permissions::from_mode(mode)).unwrap();
            account.barrier(&shut.join("open/program"))
        };
        let shut = Some(shut.canonicalize().unwrap());
        assert_eq!(barrier(0o755, &stranger), None);
        assert_eq!(barrier(0o700, &stranger), shut);
        assert_eq!(barrier(0o700, &owner), None);
        assert_eq!(barrier(0o710, &member), None);
        assert_eq!(barrier(0o701, &member), shut);
    }
}
