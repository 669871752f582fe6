//! The paths there are.

/// What lies at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// Its entries; those that are folders end with a slash.
    Folder(&'static [&'static str]),
    /// The kernel's environment.
    Envs,
    /// How the kernel is confined.
    Sandbox,
    /// The address of its container.
    LocalIpv4,
}

/// Finds a path; with and without a slash at the end is the same.
pub fn find(path: &str) -> Option<Node> {
    match path.trim_end_matches('/') {
        "" => Some(Node::Folder(&["latest/"])),
        "/latest" => Some(Node::Folder(&["meta-data/"])),
        "/latest/meta-data" => Some(Node::Folder(&["envs", "local-ipv4", "sandbox"])),
        "/latest/meta-data/envs" => Some(Node::Envs),
        "/latest/meta-data/local-ipv4" => Some(Node::LocalIpv4),
        "/latest/meta-data/sandbox" => Some(Node::Sandbox),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_every_folder_is_found() {
        let mut folders = vec!["/".to_owned()];
        let mut leaves = 0;
        while let Some(folder) = folders.pop() {
            let Some(Node::Folder(entries)) = find(&folder) else { panic!("{folder}") };
            for entry in entries {
                match find(&format!("{folder}{entry}")) {
                    Some(Node::Folder(_)) => folders.push(format!("{folder}{entry}")),
                    Some(_) => leaves += 1,
                    None => panic!("{folder}{entry}"),
                }
            }
        }
        assert_eq!(leaves, 3);
        assert_eq!(find("/latest/user-data"), None);
        assert_eq!(find("latest"), None);
    }
}
