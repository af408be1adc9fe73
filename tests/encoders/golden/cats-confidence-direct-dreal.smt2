; direct: confidence 0.028, global: violated by some input and parameters of the boxes
; unsat: nothing does, the property holds for the whole box
; sat: a counterexample (exact encoding)
(set-logic QF_NRA)
(set-option :precision 0.000001)
(declare-fun c0 () Real) ; 7/250, no float64
(assert (<= 0x1.cac083126e978p-6 c0))
(assert (<= c0 0x1.cac083126e979p-6))
(declare-fun x0 () Real) ; input 0
(assert (<= 0x1.9333333333333p+2 x0))
(assert (<= x0 20.5))
(declare-fun x1 () Real) ; input 1
(assert (<= 2.0 x1))
(assert (<= x1 0x1.f333333333334p+1))
(declare-fun theta0_0_0 () Real) ; parameter 0.weight[0, 0]
(assert (<= 0x1.21e8c3227f05fp-4 theta0_0_0))
(assert (<= theta0_0_0 0x1.4ade85b1db2efp-4))
(declare-fun theta0_0_1 () Real) ; parameter 0.weight[0, 1]
(assert (<= 0x1.2d1a665dad045p+0 theta0_0_1))
(assert (<= theta0_0_1 0x1.2fa9c286a2c6fp+0))
(declare-fun theta1_0 () Real) ; parameter 0.bias[0]
(assert (<= (- 0x1.c29547bad4a7cp+1) theta1_0))
(assert (<= theta1_0 (- 0x1.c14d99a659c66p+1)))
(declare-fun z0_0 () Real) ; reference network, layer '0', neuron 0
(assert (= z0_0 (+ (* 0x1.3663a46a2d1a7p-4 x0) (* 0x1.2e62147227e5ap+0 x1) (- 0x1.c1f170b097371p+1))))
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
(assert (or (> up0 c0) (< up0 (- c0))))
(check-sat)
(exit)
