//! A view as it is kept: in layers that nodes share and that change one at a time.
//!
//! A layer that did not change is the same one in the view before and after, so that a difference costs what has changed.
//! What an object says is not known here.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Objects by key.
pub type Layer = BTreeMap<Arc<str>, Arc<[u8]>>;

/// Everything one node must know. Cloning it copies references.
///
/// Shape: no key is in two layers, and all keys of a kind (their first part) are in layers of one field.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What every node is told.
    pub(super) fleet: Arc<Layer>,
    /// What the nodes of a realm are told.
    pub(super) realm: Arc<Layer>,
    /// What the nodes of a cluster are told.
    pub(super) cluster: Arc<Layer>,
    /// What this node alone is told.
    pub(super) node: Arc<Layer>,
    /// What its peers' sides say, by the class that is told; in the order of the classes' decimal text, as keys are.
    pub(super) sides: Vec<(u32, Arc<Layer>)>,
}

/// The difference of two views.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// New or changed objects.
    pub upserted: Vec<(Arc<str>, Arc<[u8]>)>,
    /// Keys of objects that are gone.
    pub removed: Vec<Arc<str>>,
}

impl Difference {
    /// Whether the views are equal.
    pub fn is_empty(&self) -> bool {
        self.upserted.is_empty() && self.removed.is_empty()
    }

    /// Adds what turns one layer into another: one walk over both.
    fn add(&mut self, before: &Arc<Layer>, after: &Arc<Layer>) {
        if Arc::ptr_eq(before, after) {
            return;
        }
        let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
        loop {
            match (old.peek(), new.peek()) {
                (None, None) => return,
                (Some((gone, _)), Some((key, _))) if gone < key => self.removed.extend(old.next().map(|o| o.0.clone())),
                (Some(_), None) => self.removed.extend(old.next().map(|o| o.0.clone())),
                (Some((old_key, old_value)), Some((key, value))) if old_key == key => {
                    if !Arc::ptr_eq(old_value, value) && old_value != value {
                        self.upserted.push(((*key).clone(), (*value).clone()));
                    }
                    old.next();
                    new.next();
                }
                (_, Some(_)) => self.upserted.extend(new.next().map(|(key, value)| (key.clone(), value.clone()))),
            }
        }
    }
}

/// What turns one view into another.
pub fn difference(before: &View, after: &View) -> Difference {
    let mut difference = Difference::default();
    for (old, new) in before.fixed().into_iter().zip(after.fixed()) {
        difference.add(old, new);
    }
    let nothing = Arc::default();
    let (mut old, mut new) = (before.sides.iter().peekable(), after.sides.iter().peekable());
    while let Some(class) = old.peek().into_iter().chain(new.peek()).map(|(class, _)| *class).min_by(by_text) {
        let of_old = old.next_if(|(c, _)| *c == class).map_or(&nothing, |(_, layer)| layer);
        let of_new = new.next_if(|(c, _)| *c == class).map_or(&nothing, |(_, layer)| layer);
        difference.add(of_old, of_new);
    }
    difference
}

/// The order in which keys that continue with a class's number sort.
pub(super) fn by_text(a: &u32, b: &u32) -> std::cmp::Ordering {
    // Keys go on with `/`, which sorts before every digit: so does the end of a text.
    a.to_string().cmp(&b.to_string())
}

impl View {
    fn fixed(&self) -> [&Arc<Layer>; 4] {
        [&self.fleet, &self.realm, &self.cluster, &self.node]
    }

    fn layers(&self) -> impl Iterator<Item = &Arc<Layer>> {
        self.fixed().into_iter().chain(self.sides.iter().map(|(_, layer)| layer))
    }

    /// The object of a key.
    pub fn get(&self, key: &str) -> Option<&Arc<[u8]>> {
        self.layers().find_map(|layer| layer.get(key))
    }

    /// Whether there is an object whose key begins so.
    pub fn has_below(&self, prefix: &str) -> bool {
        let first = |layer: &Arc<Layer>| {
            let from = (std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded);
            layer.range::<str, _>(from).next().is_some_and(|(key, _)| key.starts_with(prefix))
        };
        self.layers().any(first)
    }

    /// Every object, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<[u8]>)> {
        let sides: Objects<'_> = Box::new(self.sides.iter().flat_map(|(_, layer)| layer.iter()));
        let plain = self.fixed().into_iter().map(|layer| -> Objects<'_> { Box::new(layer.iter()) });
        let mut sources: Vec<Objects<'_>> = plain.chain([sides]).collect();
        let mut heads: Vec<_> = sources.iter_mut().map(Iterator::next).collect();
        // All keys of a kind are in one source: it is left only when its next key comes after another source's first.
        let (mut at, mut until) = (0, heads.first().copied().flatten().map(|(key, _)| key));
        std::iter::from_fn(move || {
            if heads[at].is_none_or(|(key, _)| until.is_some_and(|until| key >= until)) {
                let mut waiting: Vec<_> =
                    heads.iter().enumerate().filter_map(|(at, head)| head.map(|(key, _)| (key, at))).collect();
                waiting.sort_unstable();
                at = waiting.first()?.1;
                until = waiting.get(1).map(|(key, _)| *key);
            }
            std::mem::replace(&mut heads[at], sources[at].next())
        })
    }
}

/// The objects of one layer or several, by key.
type Objects<'a> = Box<dyn Iterator<Item = (&'a Arc<str>, &'a Arc<[u8]>)> + 'a>;

impl PartialEq for View {
    fn eq(&self, other: &Self) -> bool {
        difference(self, other).is_empty()
    }
}
