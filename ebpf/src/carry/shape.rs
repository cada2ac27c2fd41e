//! Where the fields of a struct are, by the types that the kernel keeps beside a map (Documentation/bpf/btf.rst); and from a
//! struct of one layout to one of another that has fields of the same names.
//!
//! Guarantees: whatever the bytes are, it ends with an answer or an error; nothing is read outside of them.

use std::collections::BTreeMap;

/// Types that are read at most, and how deep they lead from one to the next.
const TYPES_MAX: usize = 65_536;
const DEPTH_MAX: usize = 16;
/// `struct btf_header`'s magic number.
const MAGIC: u16 = 0xeb9f;

/// Kinds of type (`BTF_KIND_*`).
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const POINTER: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNCTION_PROTOTYPE: u32 = 13;
    pub(super) const VARIABLE: u32 = 14;
    pub(super) const SECTION: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECLARATION_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Why types say nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShapeError {
    /// They are not whole.
    #[error("its types cannot be read: {0}")]
    Types(&'static str),
    /// A field is not there, or is of another size.
    #[error("its {0} is not there, or of another size")]
    Field(String),
}

/// A field's place in its struct, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) at: usize,
    pub(crate) bytes: usize,
}

/// Where a struct's fields are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) bytes: usize,
    pub(crate) fields: BTreeMap<String, Field>,
}

impl Shape {
    /// Of the struct that has this number among the types.
    pub(crate) fn read(types: &[u8], number: u32) -> Result<Self, ShapeError> {
        Types::parse(types)?.shape(number)
    }

    /// The field of this name and size.
    pub(crate) fn field(&self, name: &str, bytes: usize) -> Result<Field, ShapeError> {
        let field = self.fields.get(name).copied();
        let field = field.filter(|field| field.bytes == bytes);
        field.ok_or_else(|| ShapeError::Field(name.to_owned()))
    }
}

/// One type.
#[derive(Clone, Copy)]
struct Type<'a> {
    kind: u32,
    /// A size, or the type that it leads to.
    size_or_type: u32,
    /// The members' offsets have the sizes of bit fields in them.
    bit_fields: bool,
    /// What follows it.
    rest: &'a [u8],
}

struct Types<'a> {
    types: Vec<Type<'a>>,
    strings: &'a [u8],
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

fn part(bytes: &[u8], start: u32, length: u32) -> Option<&[u8]> {
    let (start, length) = (usize::try_from(start).ok()?, usize::try_from(length).ok()?);
    bytes.get(start..)?.get(..length)
}

impl<'a> Types<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, ShapeError> {
        let short = ShapeError::Types("they are cut off");
        Self::parts(bytes).ok_or(short)?
    }

    fn parts(bytes: &'a [u8]) -> Option<Result<Self, ShapeError>> {
        if bytes.get(..2)? != MAGIC.to_ne_bytes() {
            return Some(Err(ShapeError::Types("they do not begin like types")));
        }
        let behind = bytes.get(usize::try_from(word(bytes, 4)?).ok()?..)?;
        let mut rest = part(behind, word(bytes, 8)?, word(bytes, 12)?)?;
        let strings = part(behind, word(bytes, 16)?, word(bytes, 20)?)?;
        let mut types = Vec::new();
        while !rest.is_empty() {
            if types.len() == TYPES_MAX {
                return Some(Err(ShapeError::Types("they are too many")));
            }
            let info = word(rest, 4)?;
            let (kind, members) = ((info >> 24) & 0x1f, usize::try_from(info & 0xffff).ok()?);
            let follows = match kind {
                kind::INT | kind::VARIABLE | kind::DECLARATION_TAG => 4,
                kind::ARRAY => 12,
                kind::STRUCT | kind::UNION | kind::SECTION | kind::ENUM64 => 12 * members,
                kind::ENUM | kind::FUNCTION_PROTOTYPE => 8 * members,
                _ => 0,
            };
            types.push(Type {
                kind,
                size_or_type: word(rest, 8)?,
                bit_fields: info >> 31 != 0,
                rest: rest.get(12..12 + follows)?,
            });
            rest = rest.get(12 + follows..)?;
        }
        Some(Ok(Self { types, strings }))
    }

    /// Numbers begin with 1: 0 is void.
    fn get(&self, number: u32) -> Option<&Type<'a>> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.types.get(index)
    }

    fn name(&self, at: u32) -> Option<String> {
        let text = self.strings.get(usize::try_from(at).ok()?..)?;
        let text = text.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// The type behind its other names.
    fn resolve(&self, mut number: u32) -> Option<&Type<'a>> {
        for _ in 0..DEPTH_MAX {
            let found = self.get(number)?;
            match found.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    number = found.size_or_type
                }
                _ => return Some(found),
            }
        }
        None
    }

    fn size(&self, number: u32, depth: usize) -> Option<usize> {
        let found = self.resolve(number)?;
        match found.kind {
            kind::POINTER => Some(8),
            kind::ARRAY if depth < DEPTH_MAX => {
                let one = self.size(word(found.rest, 0)?, depth + 1)?;
                one.checked_mul(usize::try_from(word(found.rest, 8)?).ok()?)
            }
            kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::FLOAT => {
                usize::try_from(found.size_or_type).ok()
            }
            _ => None,
        }
    }

    fn shape(&self, number: u32) -> Result<Shape, ShapeError> {
        let found = self.resolve(number);
        let found = found.filter(|found| found.kind == kind::STRUCT);
        let found = found.ok_or(ShapeError::Types("it is not a struct"))?;
        let mut fields = BTreeMap::new();
        for member in found.rest.chunks_exact(12) {
            let field = self.member(found, member);
            let (name, field) = field.ok_or(ShapeError::Types("a field leads nowhere"))?;
            fields.extend(field.map(|field| (name, field)));
        }
        let bytes = usize::try_from(found.size_or_type);
        let bytes = bytes.map_err(|_wide| ShapeError::Types("it is too large"))?;
        let outside = |field: &Field| field.at.saturating_add(field.bytes) > bytes;
        if fields.values().any(outside) {
            return Err(ShapeError::Types("a field is outside of it"));
        }
        Ok(Shape { bytes, fields })
    }

    /// A field by its name; none of one that has no whole bytes.
    fn member(&self, of: &Type<'a>, member: &[u8]) -> Option<(String, Option<Field>)> {
        let [name, number, offset] = [0, 4, 8].map(|at| word(member, at));
        let (name, number, offset) = (self.name(name?)?, number?, offset?);
        let (bits, wide) = if of.bit_fields {
            (offset & 0x00ff_ffff, offset >> 24)
        } else {
            (offset, 0)
        };
        if wide != 0 || bits % 8 != 0 {
            return Some((name, None));
        }
        let bytes = self.size(number, 0)?;
        let at = usize::try_from(bits / 8).ok()?;
        Some((name, Some(Field { at, bytes })))
    }
}

/// The way from a struct of another layout to one of ours.
#[derive(Debug)]
pub(crate) struct Recast {
    moves: Vec<(Field, usize)>,
    from_bytes: usize,
    to_bytes: usize,
}

impl Recast {
    /// `to` is ours: names, offsets and sizes. Fields of one name and size are taken over; `needed` must be among them.
    pub(crate) fn new(
        from: &Shape,
        to: &[(&str, usize, usize)],
        needed: &[&str],
    ) -> Result<Self, ShapeError> {
        let mut moves = Vec::new();
        let mut to_bytes = 0;
        for (name, at, bytes) in to {
            to_bytes = to_bytes.max(at + bytes);
            match from.field(name, *bytes) {
                Ok(field) => moves.push((field, *at)),
                Err(error) if needed.contains(name) => return Err(error),
                Err(_another) => {}
            }
        }
        Ok(Self {
            moves,
            from_bytes: from.bytes,
            to_bytes,
        })
    }

    /// Ours of theirs, with zero in what they do not have; none if theirs is not as long as its layout says.
    pub(crate) fn recast(&self, theirs: &[u8]) -> Option<Vec<u8>> {
        if theirs.len() != self.from_bytes {
            return None;
        }
        let mut ours = vec![0; self.to_bytes];
        for (field, at) in &self.moves {
            let bytes = theirs.get(field.at..field.at + field.bytes)?;
            ours.get_mut(*at..at + field.bytes)?.copy_from_slice(bytes);
        }
        Some(ours)
    }
}

#[cfg(test)]
#[path = "shape_tests.rs"]
mod tests;
