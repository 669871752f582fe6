//! How large a query is once its fragments are spread.
//!
//! A fragment may spread another twice, that one a third twice, and so on: thirty lines then
//! stand for a billion fields, and whatever walks them does not come back. So this is looked
//! at first, and stops counting at a bound.

use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};

/// Selections that all operations of a document may have together, with fragments spread.
/// Ten times what one operation may ask for.
const MAX_SELECTIONS: usize = 10_000;
/// Levels below which nothing is counted: queries this deep are refused for that.
const MAX_LEVELS: usize = 40;

/// True if a document stands for more than anybody may ask for.
pub(super) fn is_too_large(document: &ExecutableDocument) -> bool {
    let mut budget = MAX_SELECTIONS;
    document.operations.iter().any(|(_, operation)| {
        spend(&operation.node.selection_set.node, document, 0, &mut budget).is_none()
    })
}

/// `None` once the budget is spent.
fn spend(
    set: &SelectionSet,
    document: &ExecutableDocument,
    level: usize,
    budget: &mut usize,
) -> Option<()> {
    if level > MAX_LEVELS {
        return Some(());
    }
    for item in &set.items {
        *budget = budget.checked_sub(1)?;
        let below = match &item.node {
            Selection::Field(field) => &field.node.selection_set.node,
            Selection::InlineFragment(fragment) => &fragment.node.selection_set.node,
            Selection::FragmentSpread(spread) => {
                match document.fragments.get(&spread.node.fragment_name.node) {
                    Some(fragment) => &fragment.node.selection_set.node,
                    // The executor refuses what is unknown.
                    None => continue,
                }
            }
        };
        spend(below, document, level + 1, budget)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_graphql::parser::parse_query;

    fn too_large(query: &str) -> bool {
        is_too_large(&parse_query(query).unwrap())
    }

    #[test]
    fn fragments_that_double_are_counted_only_to_the_bound() {
        let mut query = String::from("{ x { ...f0 } } ");
        for n in 0..30 {
            let next = n + 1;
            query += &format!("fragment f{n} on T {{ ...f{next} ...f{next} }} ");
        }
        assert!(too_large(&format!("{query} fragment f30 on T {{ name }}")));
        assert!(too_large("{ ...a } fragment a on T { ...a ...a }"));
        assert!(!too_large("{ ...a } fragment a on T { x { ...a } }"));
        assert!(!too_large("{ x { y } ...missing }"));
        assert!(too_large(&format!("{{ {} }}", "x ".repeat(10_001))));
    }
}
