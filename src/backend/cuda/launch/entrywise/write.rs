//! From a group of entrywise work to the CUDA C++ of its kernel, and to the kernel's parameters;
//! `kernels/entrywise.cuh` has what the text is made of.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::super::walk::Operand as Pointer;
use super::{Layout, sum_outputs};
use crate::backend::cuda::builder::Builder;
use crate::backend::cuda::divide::FastDiv;
use crate::backend::cuda::driver::{Source, Width};
use crate::error::Result;
use crate::program::{Function, Group, Instr, Operand, Outcome};
use crate::tape::Unary;

/// What a group's text says, with its name left out, and what it is told at a launch.
pub(super) struct Written {
    /// CUDA C++ of the parameters `P_@` and of the struct `E_@`.
    pub text: String,
    /// The bytes of `P_@`.
    pub params: Vec<u8>,
}

/// A text under a name of its own.
pub(super) struct Named {
    /// A hash of the text: kernels of different texts can stand in one file.
    pub name: String,
    pub text: String,
}

/// Puts the text's name into it.
pub(super) fn named(text: &str) -> Named {
    let hash = Sha256::digest(text);
    let name: String = hash[..8].iter().map(|b| format!("{b:02x}")).collect();
    Named { text: text.replace('@', &name), name }
}

/// The file of a kernel, and the kernel's name.
pub(super) type Kernel = (Source, String);

fn file<'a>(name: String, kinds: impl IntoIterator<Item = &'a Named>, kernel: &str) -> Kernel {
    let kinds: String = kinds.into_iter().map(|k| k.text.as_str()).collect();
    let text = format!("#include \"entrywise.cuh\"\n{kinds}{kernel}");
    (Source { name: format!("{name}.cu").into(), text: text.into() }, name)
}

/// What a launch begins with.
pub(super) enum First {
    Group(Named),
    /// Batch norm's statistics.
    Moments,
}

/// The kernel of one group, or of statistics, of groups that the last of its blocks runs after it,
/// and of one that all of them go on with then, in blocks of so many threads.
pub(super) fn alone(first: First, followers: &[Named], second: Option<Named>, threads: usize) -> Kernel {
    let (group, include, first, call) = match first {
        First::Group(group) => {
            let (first, call) =
                (format!("P_{}", group.name), format!("entrywise<E_{}>(p.first, blockIdx.x)", group.name));
            (Some(group), "", first, call)
        }
        First::Moments => (None, "#include \"norm.cuh\"\n", "Norm".into(), "moments(p.first)".into()),
    };
    let (mut members, mut calls) = (String::new(), String::new());
    for (i, Named { name, .. }) in followers.iter().enumerate() {
        let _ = writeln!(members, "    P_{name} t{i};");
        let _ = writeln!(calls, "    __syncthreads();\n    entrywise<E_{name}>(p.t{i}, 0);");
    }
    let kernel = match &second {
        None => format!("KERNEL_BOUNDS(entrywise_@, T_@, {}) {{ first_@(p); }}\n", bounds(threads)),
        Some(Named { name, .. }) => {
            let _ = writeln!(members, "    u64 gate;\n    u32 blocks, pad;\n    P_{name} second;");
            format!(
                "static __device__ __forceinline__ void second_@(const T_@& p) {{
    for (u32 block = blockIdx.x; block < p.blocks; block += gridDim.x) entrywise<E_{name}>(p.second, block);
}}
GATED_KERNEL(entrywise_@, T_@, {threads}, first_@, second_@)
"
            )
        }
    };
    let kernel = named(&format!(
        "{include}struct T_@ {{
    {first} first;
{members}}};
static __device__ __forceinline__ bool first_@(const T_@& p) {{
    if (!{call}) return false;
{calls}    return true;
}}
{kernel}"
    ));
    let kinds = group.iter().chain(followers).chain(&second);
    file(format!("entrywise_{}", kernel.name), kinds, &kernel.text)
}

/// Threads of a block, and least blocks of a processor.
fn bounds(threads: usize) -> &'static str {
    if threads > 256 { "512, 1" } else { "256, 2" }
}

/// The kernel of several groups, which are of these kinds, in blocks of so many threads.
pub(super) fn several(kinds: &[Named], threads: usize) -> Kernel {
    let case = |(number, kind): (usize, &Named)| {
        let group = &kind.name;
        format!(
            "    case {number}: entrywise<E_{group}>(*reinterpret_cast<const P_{group}*>(member.params), block); break;\n"
        )
    };
    let cases: String = kinds.iter().enumerate().map(case).collect();
    let kernel = named(&format!(
        "KERNEL_BOUNDS(entrywise_many_@, Many, {}) {{
    u32 word = __ldg(reinterpret_cast<const u32*>(p.blocks) + blockIdx.x), block = word & 0xffff;
    Member member = reinterpret_cast<const Member*>(p.groups)[word >> 16];
    switch (member.kind) {{
{cases}    }}
}}
",
        bounds(threads)
    ));
    file(format!("entrywise_many_{}", kernel.name), kinds, &kernel.text)
}

/// The name of a width's type.
fn storage(pointer: &Pointer) -> &'static str {
    match pointer.width() {
        Width::F32 => "float",
        Width::Bf16 => "bf16",
    }
}

/// The name of a step's function, and its constant.
fn function(function: Function) -> (&'static str, Option<f64>) {
    match function {
        Function::Add => ("Add", None),
        Function::Mul => ("Mul", None),
        Function::Mask => ("Mask", None),
        Function::Max => ("Max", None),
        Function::Scale(c) => ("Mul", Some(c)),
        Function::Offset(c) => ("Add", Some(c)),
        Function::Unary(f) => match f {
            Unary::Sigmoid => ("Sigmoid", None),
            Unary::Recip => ("Recip", None),
            Unary::Sqrt => ("Sqrt", None),
            Unary::Exp => ("Exp", None),
            Unary::Log => ("Log", None),
            Unary::Tanh => ("Tanh", None),
            Unary::Softplus => ("Softplus", None),
            Unary::Erf => ("Erf", None),
            Unary::Pow(c) => ("Pow", Some(c.0)),
        },
    }
}

/// Parameters as they are collected.
#[derive(Default)]
struct Params {
    pointers: Vec<u64>,
    repeats: Vec<[FastDiv; 2]>,
    constants: Vec<f32>,
}

impl Params {
    fn pointer(&mut self, pointer: &Pointer) -> String {
        self.pointers.push(pointer.at);
        format!("p.t[{}]", self.pointers.len() - 1)
    }

    fn constant(&mut self, c: f64) -> String {
        self.constants.push(c as f32);
        format!("p.c[{}]", self.constants.len() - 1)
    }

    fn repeat(&mut self, post: usize, mid: usize) -> String {
        self.repeats.push([FastDiv::new(post), FastDiv::new(mid * post)]);
        format!("p.r[{}]", self.repeats.len() - 1)
    }
}

/// Writes a group.
///
/// # Errors
/// If it is larger than kernels can count.
pub(super) fn write(b: &mut Builder, instr: &Instr, group: &Group, layout: &Layout) -> Result<Written> {
    let (aligned, rows) = (layout.walk.aligned(), layout.rows);
    let mut params = Params::default();
    let (mut fields, mut begin, mut loads, mut body) =
        (String::new(), String::new(), String::new(), String::new());
    for (x, operand) in group.operands.iter().enumerate() {
        let _ = match *operand {
            Operand::Constant(c) => {
                writeln!(loads, "        auto x{x} = every<ROWS>({});", params.constant(c))
            }
            Operand::Full(arg) => {
                let from = Pointer::of(b, &instr.args[arg]).vector_if(aligned);
                let (at, t, v) = (params.pointer(&from), storage(&from), from.vector());
                writeln!(loads, "        auto x{x} = full<{t}, {v}, FULL>({at}, at);")
            }
            Operand::Repeat(arg, view) if view.pre * view.post == 1 => {
                let from = Pointer::of(b, &instr.args[arg]);
                let _ = writeln!(fields, "    float n{x};");
                let _ =
                    writeln!(begin, "        n{x} = number<{}>({});", storage(&from), params.pointer(&from));
                writeln!(loads, "        auto x{x} = every<ROWS>(n{x});")
            }
            Operand::Repeat(arg, view) => {
                let from = Pointer::of(b, &instr.args[arg]).vector_if(aligned && view.post.is_multiple_of(4));
                let (at, t, v) = (params.pointer(&from), storage(&from), from.vector());
                let how = params.repeat(view.post, view.mid);
                if layout.keeps_columns_of(&view) {
                    let _ = writeln!(fields, "    Quad q{x};");
                    let _ =
                        writeln!(begin, "        q{x} = kept<{t}, {v}>({at}, {how}.post, column, width);");
                    writeln!(loads, "        auto x{x} = every<ROWS>(q{x});")
                } else {
                    writeln!(loads, "        auto x{x} = repeated<{t}, {v}, FULL>({at}, {how}, at);")
                }
            }
        };
    }
    for (step, x) in group.steps.iter().zip(group.operands.len()..) {
        let (name, constant) = function(step.function);
        let second = match (step.function, constant) {
            (_, Some(c)) => format!(", {}", params.constant(c)),
            (Function::Unary(_), None) => String::new(),
            (_, None) => format!(", x{}", step.b),
        };
        let _ = writeln!(body, "        auto x{x} = map<{name}>(x{}{second});", step.a);
    }
    let (mut sums, mut puts) = (0, String::new());
    for (outcome, out) in group.outcomes.iter().zip(&instr.outs) {
        match outcome {
            Outcome::Store(x) => {
                let to = Pointer::of(b, out).vector_if(aligned);
                let (at, t, v) = (params.pointer(&to), storage(&to), to.vector());
                let _ = writeln!(body, "        write<{t}, {v}, FULL>({at}, at, x{x});");
            }
            Outcome::Sum(x, _) => {
                let to = Pointer::of(b, out);
                let (at, t) = (params.pointer(&to), storage(&to));
                let _ = writeln!(body, "        add<FULL>(sums[{sums}], at, x{x});");
                let _ = writeln!(
                    puts,
                    "        if (q == {sums}) reinterpret_cast<{t}*>({at})[i] = from_f32<{t}>(v);"
                );
                sums += 1;
            }
        }
    }
    debug_assert_eq!(sums, sum_outputs(group).count());
    let mut members = format!("    u64 t[{}];\n", params.pointers.len());
    for (kind, name, count) in [("Repeat", "r", params.repeats.len()), ("float", "c", params.constants.len())]
    {
        if count > 0 {
            let _ = writeln!(members, "    {kind} {name}[{count}];");
        }
    }
    let put = match sums {
        0 => String::new(),
        _ => format!(
            "    Quad sums[SUMS] = {{}};\n    INLINE void put(u32 q, u32 i, float v) const {{\n{puts}    }}\n"
        ),
    };
    let text = format!(
        "#ifndef GROUP_@\n#define GROUP_@\nstruct P_@ : Head {{\n{members}}};\nstruct E_@ {{\n    static constexpr u32 ROWS = {rows}, SUMS = {sums};\n    const P_@& p;\n{fields}    \
         INLINE explicit E_@(const P_@& params) : p(params) {{}}\n    INLINE void begin(u32 column, u32 width) {{\n{begin}    }}\n    template <bool \
         FULL> INLINE void rows(const At<ROWS>& at) {{\n{loads}{body}    }}\n{put}}};\n#endif\n"
    );
    let mut bytes = bytemuck::bytes_of(&layout.head(b)?).to_vec();
    bytes.extend_from_slice(bytemuck::cast_slice(&params.pointers));
    bytes.extend_from_slice(bytemuck::cast_slice(&params.repeats));
    bytes.extend_from_slice(bytemuck::cast_slice(&params.constants));
    bytes.resize(bytes.len().next_multiple_of(align_of::<u64>()), 0);
    Ok(Written { text, params: bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Scalar;

    #[test]
    fn every_function_stands_in_the_header_with_its_arguments() {
        let header = include_str!("../../../../../kernels/entrywise.cuh");
        let unary = [
            Unary::Sigmoid,
            Unary::Recip,
            Unary::Sqrt,
            Unary::Exp,
            Unary::Log,
            Unary::Tanh,
            Unary::Softplus,
            Unary::Erf,
        ];
        let binary = [
            Function::Add,
            Function::Mul,
            Function::Mask,
            Function::Max,
            Function::Scale(2.0),
            Function::Offset(1.0),
            Function::Unary(Unary::Pow(Scalar(3.0))),
        ];
        let cases = unary.map(|f| (Function::Unary(f), 1)).into_iter().chain(binary.map(|f| (f, 2)));
        for (f, arguments) in cases {
            let name = function(f).0;
            let body = header.split(&format!("struct {name} {{")).nth(1);
            let takes = body.and_then(|b| b.split_once("of(")).and_then(|(_, b)| b.split_once(')'));
            let count = takes.map(|(list, _)| list.matches("float").count());
            assert_eq!(count, Some(arguments), "{name}");
        }
    }
}
