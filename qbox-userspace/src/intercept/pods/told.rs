//! What is told of the pods: to the check, which tells what it has found, and to whoever asks. Changes nothing else.

use super::super::chain::Before;
use super::super::entry::{Enrolled, Entry, PodStatus, State};
use super::super::fill::entries;
use super::super::policy::Rule;
use super::super::rules::Rules;
use super::Pods;
use qbox_common::{MAX_ANNOUNCED, MAX_NAMESPACES};

impl Pods {
    /// The pods whose connections should be captured.
    pub(in crate::intercept) fn enrolled(&self) -> Vec<Enrolled> {
        let open = |(_, entry): &(&u64, &Entry)| matches!(entry.state, State::Open(_));
        let entries = self.entries.iter().filter(open);
        let pods = entries.flat_map(|(inode, entry)| entry.members.iter().map(move |pod| (inode, pod)));
        pods.filter(|(_, (_, member))| matches!(member.judged.rule, Rule::In(_)))
            .map(|(inode, (shown, member))| Enrolled {
                inode: *inode,
                shown: shown.clone(),
                cgroup: member.cgroup.clone(),
            })
            .collect()
    }

    /// Says what a check of the programs has found of a pod; that it and its namespace are in the programs' maps is looked up
    /// here.
    pub(in crate::intercept) fn checked(
        &mut self,
        enrolled: &Enrolled,
        fault: Option<String>,
        before: Vec<Before>,
    ) {
        let Some(entry) = self.entries.get_mut(&enrolled.inode) else {
            return;
        };
        let State::Open(open) = &entry.state else {
            return;
        };
        let Some(member) = entry.members.get_mut(&enrolled.shown) else {
            return;
        };
        let rules = self.rules.as_ref();
        let fault = fault
            .or_else(|| match self.namespaces.get(&open.cookie, 0) {
                Ok(found) if found == open.reached => None,
                Ok(_) if self.closed => None,
                Ok(_) | Err(_) => Some("its namespace is no longer in qbox's map".to_owned()),
            })
            .or_else(|| {
                let told =
                    rules.is_none_or(|rules| rules.holds(&member.judged.pod)) || member.refused.is_some();
                (!told).then(|| "its rule is no longer in qbox's map".to_owned())
            });
        let pod = &member.judged.name;
        match (&member.fault, &fault) {
            (None, Some(fault)) => tracing::error!(pod, fault, "a pod is no longer captured"),
            (Some(_), None) => tracing::info!(pod, "a pod is captured again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        for new in before.iter().filter(|one| !member.before.contains(one)) {
            let Before { hook, program, id } = new;
            tracing::warn!(
                pod,
                hook,
                program,
                id,
                "another program sees the pod's connections before Qbox's"
            );
        }
        member.fault = fault;
        member.before = before;
    }

    /// How many namespaces, and pods with a rule, the programs' maps hold: read there, since they are theirs.
    pub(in crate::intercept) fn map_entries(&self) -> (u64, u64) {
        let namespaces = entries(self.namespaces.keys(), MAX_NAMESPACES);
        (namespaces, self.rules.as_ref().map_or(0, Rules::map_entries))
    }

    /// How many namespaces and cgroups that were announced the programs' map holds.
    pub(in crate::intercept) fn announced_entries(&self) -> u64 {
        entries(self.announced.keys(), MAX_ANNOUNCED)
    }

    pub(in crate::intercept) fn status(&self) -> Vec<PodStatus> {
        let members = self.entries.iter().flat_map(|(inode, entry)| {
            let members = entry.members.values();
            members.map(move |member| member.status(*inode, &entry.state))
        });
        let mut all: Vec<PodStatus> = members.collect();
        all.sort_by(|a, b| a.name.cmp(&b.name).then(a.netns.cmp(&b.netns)));
        all
    }
}
