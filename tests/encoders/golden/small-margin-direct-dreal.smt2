; direct: margin 0.05, global: violated by some input and parameters of the boxes
; unsat: nothing does, the property holds for the whole box
; sat: a counterexample (exact encoding)
(set-logic QF_NRA)
(set-option :precision 0.000001)
(declare-fun c0 () Real) ; 11/20, no float64
(assert (<= 0x1.1999999999999p-1 c0))
(assert (<= c0 0x1.199999999999ap-1))
(declare-fun c1 () Real) ; 9/20, no float64
(assert (<= 0x1.cccccccccccccp-2 c1))
(assert (<= c1 0x1.ccccccccccccdp-2))
(declare-fun x0 () Real) ; input 0
(assert (<= (- 1.0) x0))
(assert (<= x0 1.0))
(declare-fun x1 () Real) ; input 1
(assert (<= 0.0 x1))
(assert (<= x1 1.0))
(declare-fun theta0_0_0 () Real) ; parameter w0[0, 0]
(assert (<= 0x1.cccccccccccccp-1 theta0_0_0))
(assert (<= theta0_0_0 0x1.199999999999ap+0))
(declare-fun theta0_0_1 () Real) ; parameter w0[0, 1]
(assert (<= (- 0x1.3333333333334p-1) theta0_0_1))
(assert (<= theta0_0_1 (- 0x1.9999999999999p-2)))
(declare-fun theta1_0 () Real) ; parameter b0[0]
(assert (<= 0x1.3333333333333p-3 theta1_0))
(assert (<= theta1_0 0x1.6666666666667p-2))
(declare-fun theta2_0_0 () Real) ; parameter w1[0, 0]
(assert (<= 0x1.6666666666666p+0 theta2_0_0))
(assert (<= theta2_0_0 0x1.999999999999ap+0))
(declare-fun theta3_0 () Real) ; parameter b1[0]
(assert (<= (- 0x1.b333333333334p-1) theta3_0))
(assert (<= theta3_0 (- 0x1.4ccccccccccccp-1)))
(declare-fun z0_0 () Real) ; reference network, layer 'n0', neuron 0
(assert (= z0_0 (+ x0 (* (- 0.5) x1) 0.25)))
(declare-fun h0_0 () Real) ; reference network, relu behind layer 'n0', neuron 0
(assert (= h0_0 (max z0_0 0.0)))
(assert (<= 0.0 h0_0))
(declare-fun z1_0 () Real) ; reference network, layer 'n2', neuron 0
(assert (= z1_0 (+ (* 1.5 h0_0) (- 0.75))))
(declare-fun p0_0 () Real) ; uncertain network, layer 'n0', neuron 0
(assert (= p0_0 (+ (* theta0_0_0 x0) (* theta0_0_1 x1) theta1_0)))
(declare-fun g0_0 () Real) ; uncertain network, relu behind layer 'n0', neuron 0
(assert (= g0_0 (max p0_0 0.0)))
(assert (<= 0.0 g0_0))
(declare-fun p1_0 () Real) ; uncertain network, layer 'n2', neuron 0
(assert (= p1_0 (+ (* theta2_0_0 g0_0) theta3_0)))
(declare-fun fp () Real) ; confidence of the uncertain network
(assert (= fp (/ 1.0 (+ 1.0 (exp (- p1_0))))))
(assert (<= 0.0 fp))
(assert (<= fp 1.0))
(declare-fun f () Real) ; confidence of the reference network
(assert (= f (/ 1.0 (+ 1.0 (exp (- z1_0))))))
(assert (<= 0.0 f))
(assert (<= f 1.0))
(assert (or (and (>= f c0) (> f 0.5) (<= fp 0.5)) (and (<= f c1) (<= f 0.5) (> fp 0.5))))
(check-sat)
(exit)
