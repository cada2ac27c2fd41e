//! Types written by hand: where fields are, how a struct goes over, and that nothing broken is believed.

use super::*;

/// Types as clang would write them: 1 is u8, 2 is u32, 3 a name for it, 4 an array of 6 of the first, 5 a struct of all of them.
fn types() -> Vec<u8> {
    let strings = b"\0number\0flags\0mac\0id\0";
    let words: &[u32] = &[
        0,
        1 << 24,
        1,
        8, // u8
        0,
        1 << 24,
        4,
        32, // u32
        1,
        8 << 24,
        2, // typedef number
        0,
        3 << 24,
        0,
        1,
        1,
        6, // array
        0,
        4 << 24 | 3,
        12, // struct
        8,
        3,
        0, // flags: number
        14,
        4,
        32, // mac: array
        18,
        1,
        80, // id: u8
    ];
    let body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    let header = [24, 0, length(&body), length(&body), length(strings)];
    let mut bytes = [&MAGIC.to_ne_bytes()[..], &[1, 0]].concat();
    bytes.extend(header.iter().flat_map(|word| word.to_ne_bytes()));
    [bytes, body, strings.to_vec()].concat()
}

#[test]
fn fields_are_where_the_types_say() {
    let shape = Shape::read(&types(), 5).unwrap();
    let field = |name: &str| shape.fields[name];
    assert_eq!((shape.bytes, shape.fields.len()), (12, 3));
    assert_eq!(field("flags"), Field { at: 0, bytes: 4 });
    assert_eq!(field("mac"), Field { at: 4, bytes: 6 });
    assert_eq!(field("id"), Field { at: 10, bytes: 1 });
    assert!(shape.field("mac", 6).is_ok());
    let error = shape.field("mac", 8).unwrap_err().to_string();
    assert_eq!(error, "its mac is not there, or of another size");
    let error = Shape::read(&types(), 4).unwrap_err().to_string();
    assert_eq!(error, "its types cannot be read: it is not a struct");
}

#[test]
fn a_struct_goes_over_by_names() {
    let shape = Shape::read(&types(), 5).unwrap();
    // Ours: another order, a field more, one of another size, and none of theirs' last.
    let ours = [("mac", 0, 6), ("new", 6, 2), ("flags", 8, 4)];
    let recast = Recast::new(&shape, &ours, &["mac", "flags"]).unwrap();
    let theirs = [1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 99, 0];
    let is = recast.recast(&theirs).unwrap();
    assert_eq!(is, [10, 11, 12, 13, 14, 15, 0, 0, 1, 2, 3, 4]);
    assert_eq!(recast.recast(&theirs[1..]), None, "not as long");
    let wide = [("flags", 0, 8)];
    assert!(Recast::new(&shape, &wide, &["flags"]).is_err());
    let left_out = Recast::new(&shape, &wide, &[]).unwrap();
    assert_eq!(left_out.recast(&theirs).unwrap(), [0; 8]);
}

#[test]
fn types_that_are_not_whole_are_refused() {
    let whole = types();
    for length in 0..whole.len() - 1 {
        // Cut off in the names behind the last one that is asked for, all is there still.
        if let Ok(shape) = Shape::read(&whole[..length], 5) {
            panic!("{length} of {}: {shape:?}", whole.len());
        }
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut wrong = whole.clone();
            wrong[at] ^= 1 << bit;
            // Whatever it says: it ends, and every field is inside.
            if let Ok(shape) = Shape::read(&wrong, 5) {
                let inside = |field: &Field| field.at + field.bytes <= shape.bytes;
                assert!(shape.fields.values().all(inside));
            }
        }
    }
}
