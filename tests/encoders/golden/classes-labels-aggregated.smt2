; aggregated: labels, local: violated by some input and parameters of the boxes
; unsat: nothing does, the property holds for the whole box
; sat: a counterexample (exact encoding)
(set-logic QF_LRA)
(declare-fun s0_0 () Real) ; slack of layer 'n0', neuron 0: what its parameters add
(assert (<= (- 0.39000000000000000499600361081320443190634250640869140625) s0_0))
(assert (<= s0_0 0.39000000000000000499600361081320443190634250640869140625))
(declare-fun s0_1 () Real) ; slack of layer 'n0', neuron 1: what its parameters add
(assert (<= (- 0.39000000000000000499600361081320443190634250640869140625) s0_1))
(assert (<= s0_1 0.39000000000000000499600361081320443190634250640869140625))
(declare-fun s0_2 () Real) ; slack of layer 'n0', neuron 2: what its parameters add
(assert (<= (- 0.39000000000000000499600361081320443190634250640869140625) s0_2))
(assert (<= s0_2 0.39000000000000000499600361081320443190634250640869140625))
(declare-fun s0_3 () Real) ; slack of layer 'n0', neuron 3: what its parameters add
(assert (<= (- 0.39000000000000000499600361081320443190634250640869140625) s0_3))
(assert (<= s0_3 0.39000000000000000499600361081320443190634250640869140625))
(declare-fun s1_0 () Real) ; slack of layer 'n2', neuron 0: what its parameters add
(declare-fun s1_1 () Real) ; slack of layer 'n2', neuron 1: what its parameters add
(declare-fun s1_2 () Real) ; slack of layer 'n2', neuron 2: what its parameters add
(declare-fun p0_0 () Real) ; uncertain network, layer 'n0', neuron 0
(assert (= p0_0 (+ s0_0 (/ 45341928334084144838115046450583.0 162259276829213363391578010288128.0))))
(declare-fun p0_1 () Real) ; uncertain network, layer 'n0', neuron 1
(assert (= p0_1 (+ s0_1 (- (/ 144795356965049504529793263091425.0 324518553658426726783156020576256.0)))))
(declare-fun p0_2 () Real) ; uncertain network, layer 'n0', neuron 2
(assert (= p0_2 (+ s0_2 (/ 15741620949282517772021220053775.0 40564819207303340847894502572032.0))))
(declare-fun p0_3 () Real) ; uncertain network, layer 'n0', neuron 3
(assert (= p0_3 (+ s0_3 (/ 17081381966280786610502967587887.0 40564819207303340847894502572032.0))))
(declare-fun g0_0 () Real) ; uncertain network, relu behind layer 'n0', neuron 0
(assert (= g0_0 (ite (>= p0_0 0.0) p0_0 0.0)))
(assert (<= 0.0 g0_0))
(declare-fun g0_1 () Real) ; uncertain network, relu behind layer 'n0', neuron 1
(assert (= g0_1 (ite (>= p0_1 0.0) p0_1 0.0)))
(assert (<= 0.0 g0_1))
(declare-fun g0_2 () Real) ; uncertain network, relu behind layer 'n0', neuron 2
(assert (= g0_2 (ite (>= p0_2 0.0) p0_2 0.0)))
(assert (<= 0.0 g0_2))
(declare-fun g0_3 () Real) ; uncertain network, relu behind layer 'n0', neuron 3
(assert (= g0_3 (ite (>= p0_3 0.0) p0_3 0.0)))
(assert (<= 0.0 g0_3))
(declare-fun n1_0 () Real) ; layer 1: sum of the magnitudes that it reads
(assert (= n1_0 (+ g0_0 g0_1 g0_2 g0_3)))
(assert (<= 0.0 n1_0))
(declare-fun r1_0 () Real) ; layer 1: how far parameters can move a neuron
(assert (= r1_0 (+ (* 0.3 n1_0) 0.3)))
(assert (<= 0.0 r1_0))
(declare-fun p1_0 () Real) ; uncertain network, layer 'n2', neuron 0
(assert (= p1_0 (+ (* 0.205030979111662625680168048347695730626583099365234375 g0_0) (* 0.389804727118702121213544842248666100203990936279296875 g0_1) (* 0.1263866309347058958234555348099092952907085418701171875 g0_2) (* (- 0.7593327698494138910945139286923222243785858154296875) g0_3) s1_0 (- 0.3197976651742975295888982145697809755802154541015625))))
(declare-fun p1_1 () Real) ; uncertain network, layer 'n2', neuron 1
(assert (= p1_1 (+ (* (- 0.598657083176038273819585810997523367404937744140625) g0_0) (* 0.268406594383647834067829762716428376734256744384765625 g0_1) (* (- 0.410259961467286993208603007587953470647335052490234375) g0_2) (* 0.899122600920814196712171906256116926670074462890625 g0_3) s1_1 (- 0.34614483791527683731459319460554979741573333740234375))))
(declare-fun p1_2 () Real) ; uncertain network, layer 'n2', neuron 2
(assert (= p1_2 (+ (* 0.91385532411006298314504192603635601699352264404296875 g0_0) (* 1.2719340178522673401317888419725932180881500244140625 g0_1) (* (- 0.0184369873393223360213966088849701918661594390869140625) g0_2) (* 0.978430551882169208255390913109295070171356201171875 g0_3) s1_2 0.07101568063158690546909923568819067440927028656005859375)))
(assert (<= s1_0 r1_0))
(assert (<= (- s1_0) r1_0))
(assert (<= s1_1 r1_0))
(assert (<= (- s1_1) r1_0))
(assert (<= s1_2 r1_0))
(assert (<= (- s1_2) r1_0))
(assert (or (>= p1_0 p1_2) (>= p1_1 p1_2)))
(check-sat)
(exit)
