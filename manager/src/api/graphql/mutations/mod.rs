//! The root of all mutations. Each begins with its rule, see [`guard`](super::guard), and
//! calls the rule of [`app`](crate::app) that the command line calls too.

mod image;

use async_graphql::MergedObject;

/// The root of all mutations.
#[derive(MergedObject, Default)]
pub struct Mutations(image::ImageMutations);
