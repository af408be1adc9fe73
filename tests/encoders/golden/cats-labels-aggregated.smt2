; aggregated: labels, global: violated by some input and parameters of the boxes
; unsat: nothing does, the property holds for the whole box
; sat: a counterexample (exact encoding)
(set-logic QF_LRA)
(declare-fun x0 () Real) ; input 0
(assert (<= 6.3 x0))
(assert (<= x0 20.5))
(declare-fun x1 () Real) ; input 1
(assert (<= 2.0 x1))
(assert (<= x1 3.9))
(declare-fun s0_0 () Real) ; slack of layer '0', neuron 0: what its parameters add
(assert (<= (- 0.254) s0_0))
(assert (<= s0_0 0.254))
(declare-fun z0_0 () Real) ; reference network, layer '0', neuron 0
(assert (= z0_0 (+ (* 0.07577862000000000486377160768824978731572628021240234375 x0) (* 1.181184079999999969601276461617089807987213134765625 x1) (- 3.515180669999999896191411608015187084674835205078125))))
(declare-fun n0_0 () Real) ; layer 0: sum of the magnitudes that it reads
(assert (= n0_0 (+ x0 x1)))
(assert (<= 0.0 n0_0))
(assert (<= n0_0 24.4))
(declare-fun r0_0 () Real) ; layer 0: how far parameters can move a neuron
(assert (= r0_0 (+ (* 0.01 n0_0) 0.01)))
(assert (<= 0.0 r0_0))
(assert (<= r0_0 0.254))
(declare-fun p0_0 () Real) ; uncertain network, layer '0', neuron 0
(assert (= p0_0 (+ (* 0.07577862000000000486377160768824978731572628021240234375 x0) (* 1.181184079999999969601276461617089807987213134765625 x1) s0_0 (- 3.515180669999999896191411608015187084674835205078125))))
(assert (<= s0_0 r0_0))
(assert (<= (- s0_0) r0_0))
(assert (or (and (> z0_0 0.0) (<= p0_0 0.0)) (and (<= z0_0 0.0) (> p0_0 0.0))))
(check-sat)
(exit)
