; direct: confidence 0.028, global: violated by some input and parameters of the boxes
; unsat: nothing does, the property holds for the whole box
; sat: a counterexample (exact encoding)
(set-logic QF_NRAT)
(declare-fun x0 () Real) ; input 0
(assert (<= 6.3 x0))
(assert (<= x0 20.5))
(declare-fun x1 () Real) ; input 1
(assert (<= 2.0 x1))
(assert (<= x1 3.9))
(declare-fun theta0_0_0 () Real) ; parameter 0.weight[0, 0]
(assert (<= 0.07077862000000000486377160768824978731572628021240234375 theta0_0_0))
(assert (<= theta0_0_0 0.08077862000000000486377160768824978731572628021240234375))
(declare-fun theta0_0_1 () Real) ; parameter 0.weight[0, 1]
(assert (<= 1.176184079999999969601276461617089807987213134765625 theta0_0_1))
(assert (<= theta0_0_1 1.186184079999999969601276461617089807987213134765625))
(declare-fun theta1_0 () Real) ; parameter 0.bias[0]
(assert (<= (- 3.520180669999999896191411608015187084674835205078125) theta1_0))
(assert (<= theta1_0 (- 3.510180669999999896191411608015187084674835205078125)))
(declare-fun z0_0 () Real) ; reference network, layer '0', neuron 0
(assert (= z0_0 (+ (* 0.07577862000000000486377160768824978731572628021240234375 x0) (* 1.181184079999999969601276461617089807987213134765625 x1) (- 3.515180669999999896191411608015187084674835205078125))))
(declare-fun p0_0 () Real) ; uncertain network, layer '0', neuron 0
(assert (= p0_0 (+ (* theta0_0_0 x0) (* theta0_0_1 x1) theta1_0)))
(declare-fun fp () Real) ; confidence of the uncertain network
(assert (= fp (/ 1.0 (+ 1.0 (exp (- p0_0))))))
(assert (<= 0.0 fp))
(assert (<= fp 1.0))
(declare-fun f () Real) ; confidence of the reference network
(assert (= f (/ 1.0 (+ 1.0 (exp (- z0_0))))))
(assert (<= 0.0 f))
(assert (<= f 1.0))
(declare-fun up0 () Real) ; change of output 0
(assert (= up0 (+ fp (- f))))
(assert (<= (- 1.0) up0))
(assert (<= up0 1.0))
(assert (or (> up0 0.028) (< up0 (- 0.028))))
(check-sat)
(exit)
