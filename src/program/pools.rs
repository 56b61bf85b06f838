//! Max-pooling before what keeps the order of a channel's numbers: a ReLU, a bias. What is
//! entrywise then works on a quarter of the numbers, forward and backward. Each rule says `before
//! => after`.
//!
//! Values are the same to the bit, since rounding keeps the order, too. So are derivatives, but
//! where a window's largest numbers become equal only by the bias' rounding: either may then be
//! picked.

use super::lower::Lowering;
use crate::error::Result;
use crate::tape::{Op, Var, Window};

impl Lowering<'_> {
    /// `v` of `[n,h,w,c]` at the maxima of `x`.
    pub fn select(&mut self, window: Window, v: Var, x: Var) -> Result<Var> {
        if let Some(z) = self.rectified(x) {
            // select(relu(z), relu(z)) => relu(select(z, z))
            if v == x {
                let maxima = self.select(window, z, z)?;
                return self.out.relu(maxima);
            }
            // select(mask(v, relu(z)), relu(z)) => mask(select(v, z), relu(select(z, z))): where no
            // number of a window is above 0, each is masked.
            let node = self.out.node(v);
            if node.op == Op::Mask && node.args[1] == x {
                let v = node.args[0];
                let [v, maxima] = [self.select(window, v, z)?, self.select(window, x, x)?];
                return self.out.mask(v, maxima);
            }
        }
        if let Some((y, bias)) = self.shifted(x) {
            if v != x {
                // select(v, y + broadcast(b)) => select(v, y)
                return self.select(window, v, y);
            }
            // select(y + broadcast(b), y + broadcast(b)) => select(y, y) + broadcast(b)
            let y = self.select(window, y, y)?;
            let bias = self.out.broadcast_to(bias, self.out.shape(y).clone())?;
            return self.out.add(y, bias);
        }
        self.out.push(Op::Select(window), &[v, x], None)
    }

    /// The transpose of [`Lowering::select`] in `v`.
    pub fn unselect(&mut self, window: Window, ct: Var, x: Var) -> Result<Var> {
        match self.shifted(x) {
            // unselect(v, y + broadcast(b)) => unselect(v, y)
            Some((y, _)) => self.unselect(window, ct, y),
            None => self.out.push(Op::Unselect(window), &[ct, x], None),
        }
    }

    /// `mask(unselect(v, relu(z)), relu(z)) => unselect(mask(v, relu(select(z, z))), z)`
    pub fn mask(&mut self, v: Var, x: Var) -> Result<Var> {
        if let (Op::Unselect(window), Some(z)) = (self.out.node(v).op.clone(), self.rectified(x)) {
            let [ct, pooled] = [self.out.node(v).args[0], self.out.node(v).args[1]];
            if pooled == x {
                let maxima = self.select(window, x, x)?;
                let ct = self.out.mask(ct, maxima)?;
                return self.unselect(window, ct, z);
            }
        }
        self.out.mask(v, x)
    }

    /// z of relu(z).
    fn rectified(&self, x: Var) -> Option<Var> {
        let node = self.out.node(x);
        (node.op == Op::Mask && node.args[0] == node.args[1]).then(|| node.args[0])
    }

    /// y and b of y + broadcast(b), b `[c]`.
    fn shifted(&self, x: Var) -> Option<(Var, Var)> {
        let node = self.out.node(x);
        let bias = |v: Var| {
            let node = self.out.node(v);
            (node.op == Op::Broadcast { from: 0, to: 3 }).then(|| node.args[0])
        };
        if node.op != Op::Add {
            return None;
        }
        let [a, b] = [node.args[0], node.args[1]];
        bias(b).map(|bias| (a, bias)).or_else(|| bias(a).map(|bias| (b, bias)))
    }
}
