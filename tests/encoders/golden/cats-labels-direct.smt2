; direct: labels, global: violated by some input and parameters of the boxes
; unsat: nothing does, the property holds for the whole box
; sat: a counterexample (exact encoding)
(set-logic QF_NRA)
(declare-fun x0 () Real) ; input 0
(assert (<= 6.3 x0))
(assert (<= x0 20.5))
(declare-fun x1 () Real) ; input 1
(assert (<= 2.0 x1))
(assert (<= x1 3.9))
(declare-fun theta0_0_0 () Real) ; parameter 0.weight[0, 0]
(assert (<= 0.06577862000000000486377160768824978731572628021240234375 theta0_0_0))
(assert (<= theta0_0_0 0.08577862000000000486377160768824978731572628021240234375))
(declare-fun theta0_0_1 () Real) ; parameter 0.weight[0, 1]
(assert (<= 1.171184079999999969601276461617089807987213134765625 theta0_0_1))
(assert (<= theta0_0_1 1.191184079999999969601276461617089807987213134765625))
(declare-fun theta1_0 () Real) ; parameter 0.bias[0]
(assert (<= (- 3.525180669999999896191411608015187084674835205078125) theta1_0))
(assert (<= theta1_0 (- 3.505180669999999896191411608015187084674835205078125)))
(declare-fun z0_0 () Real) ; reference network, layer '0', neuron 0
(assert (= z0_0 (+ (* 0.07577862000000000486377160768824978731572628021240234375 x0) (* 1.181184079999999969601276461617089807987213134765625 x1) (- 3.515180669999999896191411608015187084674835205078125))))
(declare-fun p0_0 () Real) ; uncertain network, layer '0', neuron 0
(assert (= p0_0 (+ (* theta0_0_0 x0) (* theta0_0_1 x1) theta1_0)))
(assert (or (and (> z0_0 0.0) (<= p0_0 0.0)) (and (<= z0_0 0.0) (> p0_0 0.0))))
(check-sat)
(exit)
