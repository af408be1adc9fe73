; aggregated: margin 0.05, global: violated by some input and parameters of the boxes
; unsat: nothing does, the property holds for the whole box
; sat: a candidate that has to be replayed (the encoding lets more points in)
(set-logic QF_LRA)
(declare-fun x0 () Real) ; input 0
(assert (<= (- 1.0) x0))
(assert (<= x0 1.0))
(declare-fun x1 () Real) ; input 1
(assert (<= 0.0 x1))
(assert (<= x1 1.0))
(declare-fun s0_0 () Real) ; slack of layer 'n0', neuron 0: what its parameters add
(assert (<= (- 0.3) s0_0))
(assert (<= s0_0 0.3))
(declare-fun s1_0 () Real) ; slack of layer 'n2', neuron 0: what its parameters add
(declare-fun z0_0 () Real) ; reference network, layer 'n0', neuron 0
(assert (= z0_0 (+ x0 (* (- 0.5) x1) 0.25)))
(declare-fun h0_0 () Real) ; reference network, relu behind layer 'n0', neuron 0
(assert (= h0_0 (ite (>= z0_0 0.0) z0_0 0.0)))
(assert (<= 0.0 h0_0))
(declare-fun z1_0 () Real) ; reference network, layer 'n2', neuron 0
(assert (= z1_0 (+ (* 1.5 h0_0) (- 0.75))))
(declare-fun abs_x0 () Real) ; |x0|
(assert (= abs_x0 (ite (>= x0 (- x0)) x0 (- x0))))
(assert (<= 0.0 abs_x0))
(assert (<= abs_x0 1.0))
(declare-fun n0_0 () Real) ; layer 0: sum of the magnitudes that it reads
(assert (= n0_0 (+ abs_x0 x1)))
(assert (<= 0.0 n0_0))
(assert (<= n0_0 2.0))
(declare-fun r0_0 () Real) ; layer 0: how far parameters can move a neuron
(assert (= r0_0 (+ (* 0.1 n0_0) 0.1)))
(assert (<= 0.0 r0_0))
(assert (<= r0_0 0.3))
(declare-fun p0_0 () Real) ; uncertain network, layer 'n0', neuron 0
(assert (= p0_0 (+ x0 (* (- 0.5) x1) s0_0 0.25)))
(declare-fun g0_0 () Real) ; uncertain network, relu behind layer 'n0', neuron 0
(assert (= g0_0 (ite (>= p0_0 0.0) p0_0 0.0)))
(assert (<= 0.0 g0_0))
(declare-fun r1_0 () Real) ; layer 1: how far parameters can move a neuron
(assert (= r1_0 (+ (* 0.1 g0_0) 0.1)))
(assert (<= 0.0 r1_0))
(declare-fun p1_0 () Real) ; uncertain network, layer 'n2', neuron 0
(assert (= p1_0 (+ (* 1.5 g0_0) s1_0 (- 0.75))))
(assert (<= s0_0 r0_0))
(assert (<= (- s0_0) r0_0))
(assert (<= s1_0 r1_0))
(assert (<= (- s1_0) r1_0))
(assert (or (and (>= z1_0 (/ 273138796894126490192551601583423220699.0 1361129467683753853853498429727072845824.0)) (> z1_0 0.0) (<= p1_0 0.0)) (and (<= z1_0 (- (/ 273138796894126490192551601583423220707.0 1361129467683753853853498429727072845824.0))) (<= z1_0 0.0) (> p1_0 0.0))))
(check-sat)
(exit)
