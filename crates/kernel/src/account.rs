//! Accounts, read from `/etc/passwd` and `/etc/group`.
//!
//! Not through the name service switch: its modules cannot be loaded into a static binary. An
//! account that only a directory server knows is therefore not found.

use std::fs;
use std::io;
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
}
