//! Who subscribed to what, for those who look after the node.

use std::ops::ControlFlow;
use std::sync::Arc;

use unhidra_core::topic::TopicFilter;

use super::queue::Queue;
use super::{Router, Subscription};
use crate::acl::Principal;

/// One subscription, as it was found.
#[derive(Debug)]
pub(crate) struct Subscribed {
    /// Its Topic Filter, without `$share` and the ShareName.
    pub(crate) filter: Box<str>,
    pub(crate) share_name: Option<Box<str>>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) subscription: Subscription,
    /// Who must be asked about before each delivery.
    pub(crate) checked: Option<Arc<Principal>>,
}

impl Router {
    /// Adds the subscriptions by which a message could come whose topic `wanted` stands for, until
    /// there are `max`. A topic without wildcards stands for itself.
    pub(crate) fn overlapping(&self, wanted: TopicFilter<'_>, max: usize, found: &mut Vec<Subscribed>) {
        let go_on = |found: &Vec<_>| if found.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        let _ = self.own.overlapping(wanted, &mut |filter, _, served| {
            go_on(found)?;
            found.push(Subscribed {
                filter: filter.into(),
                share_name: None,
                queue: served.queue.clone(),
                subscription: served.subscription,
                checked: served.checked.clone(),
            });
            ControlFlow::Continue(())
        });
        let _ = self.shared.overlapping(wanted, &mut |filter, share_name, group| {
            group.each(|queue, subscription, checked| {
                if found.len() < max {
                    found.push(Subscribed {
                        filter: filter.into(),
                        share_name: Some(share_name.clone()),
                        queue: queue.clone(),
                        subscription,
                        checked: checked.cloned(),
                    });
                }
            });
            go_on(found)
        });
    }
}
